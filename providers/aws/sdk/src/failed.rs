//! What the SDK says of a call that failed, as a [`CallError`].

use std::error::Error;
use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use berth_aws::action::Action;
use berth_aws::cloud::CallError;

/// What AWS puts behind a refusal: a secret that differs from call to call, which nobody can read and no condition should repeat.
const SECRET: &str = "Encoded authorization failure message:";
/// By which header a wait is asked for.
const RETRY_AFTER: &str = "retry-after";
/// Longest wait that is believed. What asks for more is a mistake.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A call that failed, and how long AWS asked to wait.
#[derive(Debug, PartialEq)]
pub(crate) struct Failed {
    pub error: CallError,
    pub wait: Option<Duration>,
}

/// Reads what failed. There is no code where nothing was answered that can be understood.
pub(crate) fn failed<E>(action: Action, error: &SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let name = action.as_str();
    let answer = error.raw_response();
    let wait = answer.and_then(|answer| answer.headers().get(RETRY_AFTER)?.trim().parse().ok());
    let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).filter(|code| !code.is_empty());
    let error = match (code, answer.map(|answer| answer.status().as_u16())) {
        (Some(code), _) => CallError::new(name, code, readable(error.message().unwrap_or_default())),
        // From something in between, such as a proxy, that does not speak as AWS does.
        (None, Some(429)) => CallError::new(name, "TooManyRequestsException", "answered with the status 429"),
        (None, Some(status @ 400..)) => {
            CallError::new(name, "ServiceUnavailable", format!("answered with the status {status}"))
        }
        (None, _) => CallError::unanswered(name, reasons(error)),
    };
    Failed { error, wait }
}

fn readable(message: &str) -> String {
    message.split(SECRET).next().unwrap_or_default().trim().to_owned()
}

/// What happened, and why, down to the last reason. A reason often repeats the one below.
fn reasons(error: &(dyn Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string);
    let mut text = String::new();
    for reason in all.filter(|reason| !reason.is_empty()) {
        if !text.contains(&reason) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&reason);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::{ConnectorError, ErrorMetadata};
    use aws_sdk_ec2::operation::create_security_group::CreateSecurityGroupError as Refusal;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    const ACTION: Action = Action::CreateSecurityGroup;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> HttpResponse {
        let mut answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        for (name, value) in headers {
            answer.headers_mut().insert(*name, *value);
        }
        answer
    }

    fn refusal(code: &str, message: &str, answer: HttpResponse) -> SdkError<Refusal, HttpResponse> {
        SdkError::service_error(Refusal::generic(ErrorMetadata::builder().code(code).message(message).build()), answer)
    }

    #[test]
    fn the_code_and_the_message_are_those_of_aws_without_what_nobody_can_read() {
        let message = "You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not authorized to perform: \
            ec2:CreateTags on resource: y because no policy allows it. Encoded authorization failure message: AbCdEf123";
        let Failed { error, wait } = failed(ACTION, &refusal("UnauthorizedOperation", message, answer(403, &[])));
        assert_eq!(
            (error.action, error.code.as_str(), wait),
            ("ec2:CreateSecurityGroup", "UnauthorizedOperation", None)
        );
        assert!(error.message.ends_with("because no policy allows it."), "{error}");
    }

    #[test]
    fn an_answer_without_a_code_is_told_by_its_status() {
        for (status, code) in
            [(429, "TooManyRequestsException"), (502, "ServiceUnavailable"), (400, "ServiceUnavailable")]
        {
            let error = SdkError::<Refusal, _>::response_error("no XML", answer(status, &[]));
            assert_eq!(failed(ACTION, &error).error.code, code);
            assert_eq!(failed(ACTION, &refusal("", "", answer(status, &[]))).error.code, code);
        }
        // It was carried out perhaps, and the answer cannot be read.
        let error = SdkError::<Refusal, _>::response_error("no XML", answer(200, &[]));
        assert_eq!(failed(ACTION, &error).error.code, "");
    }

    #[test]
    fn a_wait_that_is_asked_for_is_believed_within_reason() {
        for (value, expected) in
            [("7", Some(7)), ("86400", Some(60)), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None)]
        {
            let error = refusal("Throttling", "Rate exceeded", answer(400, &[(RETRY_AFTER, value)]));
            assert_eq!(failed(ACTION, &error).wait, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn no_answer_is_no_code_and_every_reason() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused");
        let error = SdkError::<Refusal, HttpResponse>::dispatch_failure(ConnectorError::io(refused.into()));
        assert_eq!(
            failed(ACTION, &error).error,
            CallError::unanswered("ec2:CreateSecurityGroup", "dispatch failure: io error: Connection refused")
        );
    }
}
