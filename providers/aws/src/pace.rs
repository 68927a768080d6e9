//! How fast calls are made: a token bucket for each lane, which slows down when AWS asks for fewer calls and recovers by itself.
//!
//! Time comes in as what has passed since some beginning. Whoever makes the calls waits for a turn, one after the other in each lane.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::action::Lane;

/// The slowest that a lane becomes, in calls a second. AWS's buckets refill with more than this; below it nothing would ever be done.
const SLOWEST: f64 = 0.5;
/// How much of its rate a lane keeps when AWS asks for fewer calls.
const KEPT: f64 = 0.7;
/// Refusals within this time are one: they answer calls that were all on their way.
const ONE_REFUSAL: Duration = Duration::from_secs(1);
/// How long a lane takes to become twice as fast when AWS asks for nothing any more, up to its full rate. So a slow lane, near what AWS
/// allows, goes up in small steps and is not refused again within a second, and the way from the slowest to the full rate is two minutes.
const TWICE_AFTER: Duration = Duration::from_secs(20);
/// The shortest wait, which is what timers measure.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How fast calls may be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In a second, on the whole.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

/// How fast the calls of each lane may be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates([Rate; Lane::ALL.len()]);

impl Default for Rates {
    /// What AWS allows an account and region by itself, or less: the rest is for others.
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        // In the order of `Lane::ALL`.
        Self([rate(20.0, 100.0), rate(10.0, 100.0), rate(40.0, 200.0), rate(20.0, 100.0), rate(40.0, 200.0)])
    }
}

/// Words that are no rates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RatesError {
    /// Not of the form LANE=RATE or LANE=RATE/BURST.
    #[error("`{0}` is no rate; write LANE=CALLS or LANE=CALLS/BURST, such as elb-read=40/200")]
    Form(String),
    /// A lane that there is not.
    #[error("`{0}` is of no lane; they are {lanes}", lanes = Lane::ALL.map(Lane::as_str).join(", "))]
    Lane(String),
    /// A rate that nothing can be done with.
    #[error("`{0}`: write at least {SLOWEST} calls a second and a burst of at least 1")]
    TooSlow(String),
}

impl Rates {
    /// That of a lane.
    pub fn of(&self, lane: Lane) -> Rate {
        self.0[lane as usize]
    }
}

impl FromStr for Rates {
    type Err = RatesError;

    /// Reads `LANE=CALLS` or `LANE=CALLS/BURST`, separated by commas; lanes that are not named keep their rates. Without a burst it is
    /// what five seconds bring.
    fn from_str(text: &str) -> Result<Self, RatesError> {
        const BURST_SECONDS: f64 = 5.0;
        let mut rates = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let form = || RatesError::Form(word.to_owned());
            let (lane, rate) = word.split_once('=').ok_or_else(form)?;
            let lane = Lane::ALL.into_iter().find(|one| one.as_str() == lane);
            let lane = lane.ok_or_else(|| RatesError::Lane(word.to_owned()))?;
            let (per_second, burst) = rate.split_once('/').map_or((rate, None), |(rate, burst)| (rate, Some(burst)));
            let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(form);
            let per_second = number(per_second)?;
            let burst = burst.map(number).transpose()?.unwrap_or((per_second * BURST_SECONDS).max(1.0));
            if per_second < SLOWEST || burst < 1.0 {
                return Err(RatesError::TooSlow(word.to_owned()));
            }
            rates.0[lane as usize] = Rate { per_second, burst };
        }
        Ok(rates)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Lane::ALL.map(|lane| format!("{lane}={}/{}", self.of(lane).per_second, self.of(lane).burst));
        f.write_str(&words.join(","))
    }
}

/// The bucket of a lane.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// As fast as it ever is.
    limit: Rate,
    /// As fast as it is now, in calls a second.
    rate: f64,
    /// Calls that may be made at once.
    tokens: f64,
    /// When it was last looked at.
    at: Duration,
    /// When AWS asked for fewer calls.
    refused: Option<Duration>,
    /// No call before this: AWS said how long to wait.
    closed_until: Duration,
}

impl Bucket {
    /// A full one.
    pub fn new(limit: Rate, now: Duration) -> Self {
        let (rate, tokens) = (limit.per_second, limit.burst);
        Self { limit, rate, tokens, at: now, refused: None, closed_until: Duration::ZERO }
    }

    /// How fast it is now, in calls a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Takes a turn: the call may be made now. Otherwise how long to wait before asking again.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.advance(now);
        if now < self.closed_until {
            return Err(self.closed_until.saturating_sub(now));
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // What is lost in rounding must not become a wait of nothing, without an end.
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate).max(SHORTEST_WAIT))
    }

    /// AWS has asked for fewer calls, and perhaps how long to wait.
    pub fn refused(&mut self, now: Duration, wait: Option<Duration>) {
        self.advance(now);
        self.tokens = 0.0;
        if let Some(wait) = wait {
            self.closed_until = self.closed_until.max(now + wait);
        }
        if self.refused.is_none_or(|before| now.saturating_sub(before) >= ONE_REFUSAL) {
            self.rate = (self.rate * KEPT).max(SLOWEST.min(self.limit.per_second));
            self.refused = Some(now);
        }
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.limit.burst);
        self.rate = (self.rate * (passed / TWICE_AFTER.as_secs_f64()).exp2()).min(self.limit.per_second);
    }
}

#[cfg(test)]
mod tests;
