//! One call: its turn, its failure, and whether it is made again at once.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2 as ec2;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_elasticloadbalancingv2 as elb;
use berth_aws::action::Action;
use berth_aws::cloud::CallError;
use berth_aws::pace::Rates;
use tokio::time::{sleep, timeout};

use crate::failed::{Failed, failed};
use crate::lanes::Lanes;

pub(crate) type Called<T> = Result<T, CallError>;

/// Longest wait for a turn. Whoever waits for longer is told that AWS asks for fewer calls: it should look again before it goes on, and
/// whether it still leads.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a call is made when AWS asks for fewer calls: it did nothing then, and the next turn comes later by itself.
const WHEN_THROTTLED: u32 = 5;
/// How often a call that looks is made when there was no answer. One that changes something is made once: what came of it is looked up.
const WHEN_UNANSWERED: u32 = 3;
/// Before a call that looks is made again; twice as long before the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// AWS itself, or what answers in its place. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sdk {
    pub(crate) ec2: ec2::Client,
    pub(crate) elb: elb::Client,
    lanes: Arc<Lanes>,
}

impl Sdk {
    /// With credentials, region, endpoint and time-outs from a configuration. It should make no call twice by itself: that is done here, as
    /// fast as `rates` say.
    pub fn new(config: &SdkConfig, rates: &Rates) -> Self {
        Self { ec2: ec2::Client::new(config), elb: elb::Client::new(config), lanes: Arc::new(Lanes::new(rates)) }
    }

    /// Makes a call when it is its turn.
    pub(crate) async fn call<T, E, F>(&self, action: Action, make: impl Fn() -> F + Send) -> Called<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        T: Send,
    {
        for attempt in 1.. {
            if timeout(PATIENCE, self.lanes.turn(action.lane())).await.is_err() {
                let why = format!("waited for {} s for a turn, because AWS asks for fewer calls", PATIENCE.as_secs());
                return Err(CallError::new(action.as_str(), "RequestThrottled", why));
            }
            let Failed { error, wait } = match make().await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed(action, &error),
            };
            let again = if error.is_throttled() {
                self.lanes.refused(action.lane(), wait);
                attempt < WHEN_THROTTLED
            } else {
                action.is_read() && error.is_transient() && attempt < WHEN_UNANSWERED
            };
            if !again {
                return Err(error);
            }
            if !error.is_throttled() {
                sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            }
        }
        // The attempts are numbered without an end.
        Err(lacks(action, "anything"))
    }
}

/// An answer without what it always has.
pub(crate) fn lacks(action: Action, what: &str) -> CallError {
    CallError::unanswered(action.as_str(), format!("the answer lacks {what}"))
}

/// All pages of a list: `paged!(sdk, Action, call, set_token, next_token, items)`.
macro_rules! paged {
    ($sdk:expr, $action:expr, $call:expr, $set:ident, $next:ident, $items:ident) => {{
        let call = $call;
        let (mut all, mut token) = (Vec::new(), None);
        loop {
            let page = $sdk.call($action, || call.clone().$set(token.clone()).send()).await?;
            all.extend(page.$items.unwrap_or_default());
            let next = page.$next.filter(|next| !next.is_empty());
            // The same page again would come without an end.
            if next.is_none() || next == token {
                break all;
            }
            token = next;
        }
    }};
}
pub(crate) use paged;
