//! Errors of the API server, short enough for a log line.

use kube::runtime::watcher;

/// An error in the words of the API server where it has any, without the whole answer behind them.
pub fn brief(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(kube::Error::Api(status)) = inner.downcast_ref() {
            return format!("{} ({})", status.message, status.code);
        }
        if let Some(watcher::Error::WatchError(status)) = inner.downcast_ref() {
            return format!("{} ({})", status.message, status.code);
        }
        cause = inner.source();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_the_words_of_the_api_server() {
        let status = || kube::core::Status::failure("too much", "TooManyRequests").with_code(429).boxed();
        let refused = || kube::Error::Api(status());
        let cases: [Box<dyn std::error::Error>; 3] = [
            Box::new(refused()),
            Box::new(watcher::Error::InitialListFailed(refused())),
            Box::new(watcher::Error::WatchError(status())),
        ];
        for error in cases {
            assert_eq!(brief(&*error), "too much (429)", "{error:?}");
        }
        assert_eq!(brief(&std::io::Error::other("no answer")), "no answer");
    }
}
