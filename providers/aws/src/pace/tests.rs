use proptest::prelude::*;

use super::*;

const RATE: Rate = Rate { per_second: 20.0, burst: 100.0 };

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn rates_are_read_by_lane_and_the_others_keep_theirs() {
    let read = |text: &str| text.parse::<Rates>();
    for (text, lane, expected) in [
        ("", Lane::ElbRead, Rate { per_second: 40.0, burst: 200.0 }),
        ("elb-read=5", Lane::ElbRead, Rate { per_second: 5.0, burst: 25.0 }),
        ("elb-read=5/7", Lane::ElbRead, Rate { per_second: 5.0, burst: 7.0 }),
        (" ec2-write=0.5 , elb-read=5", Lane::Ec2Write, Rate { per_second: 0.5, burst: 2.5 }),
        ("ec2-write=0.5,elb-read=5", Lane::ElbWrite, Rate { per_second: 20.0, burst: 100.0 }),
    ] {
        assert_eq!(read(text).unwrap().of(lane), expected, "{text}");
    }
    for text in ["elb-read", "elb-read=", "elb-read=x", "elb-read=5/", "elb-read=inf", "elb-read=NaN", "elb-read=1/2/3"]
    {
        assert_eq!(read(text), Err(RatesError::Form(text.to_owned())), "{text}");
    }
    assert_eq!(read("s3=5"), Err(RatesError::Lane("s3=5".to_owned())));
    for text in ["elb-read=0", "elb-read=-1", "elb-read=5/0"] {
        assert_eq!(read(text), Err(RatesError::TooSlow(text.to_owned())), "{text}");
    }
    assert_eq!(read(&Rates::default().to_string()), Ok(Rates::default()));
}

#[test]
fn a_refusal_slows_down_once_for_all_calls_that_were_on_their_way_and_no_call_is_made_while_aws_said_to_wait() {
    let mut bucket = Bucket::new(RATE, millis(0));
    for now in [0, 10, 500, 999] {
        bucket.refused(millis(now), None);
    }
    assert!((14.0..14.5).contains(&bucket.rate()), "{}", bucket.rate());
    bucket.refused(millis(1100), Some(Duration::from_secs(7)));
    assert!((9.8..10.4).contains(&bucket.rate()), "{}", bucket.rate());
    assert_eq!(bucket.take(millis(8000)), Err(millis(100)));
    assert_eq!(bucket.take(millis(8100)), Ok(()));
}

#[test]
fn the_rate_doubles_again_and_again_until_it_is_the_full_one() {
    let mut bucket = Bucket::new(RATE, millis(0));
    for second in 0..30 {
        bucket.refused(Duration::from_secs(second), None);
    }
    assert!((bucket.rate() - SLOWEST).abs() < f64::EPSILON, "{}", bucket.rate());
    for (doubled, expected) in [(1_u32, 1.0), (3, 4.0), (5, 16.0), (6, 20.0)] {
        let _ = bucket.take(Duration::from_secs(29) + TWICE_AFTER * doubled);
        assert!((bucket.rate() - expected).abs() < 1e-6, "{doubled}: {}", bucket.rate());
    }
}

/// AWS as it counts calls: a bucket of its own.
struct Aws {
    rate: f64,
    burst: f64,
    tokens: f64,
}

impl Aws {
    fn pass(&mut self, time: Duration) {
        self.tokens = (self.tokens + time.as_secs_f64() * self.rate).min(self.burst);
    }

    fn answers(&mut self) -> bool {
        let answers = self.tokens >= 1.0;
        self.tokens -= if answers { 1.0 } else { 0.0 };
        answers
    }
}

/// Makes so many calls one after the other as turns come, each again until it is answered: how long that takes, and how many were refused.
fn make(calls: usize, aws: &mut Aws) -> (Duration, usize) {
    let mut bucket = Bucket::new(RATE, Duration::ZERO);
    let (mut now, mut done, mut refused) = (Duration::ZERO, 0, 0);
    while done < calls {
        if let Err(wait) = bucket.take(now) {
            now += wait;
            aws.pass(wait);
        } else if aws.answers() {
            done += 1;
        } else {
            bucket.refused(now, None);
            refused += 1;
        }
    }
    (now, refused)
}

#[test]
fn what_aws_allows_is_found_and_nearly_used_up() {
    for (rate, burst) in [(2.0, 2.0), (5.0, 10.0), (1.0, 1.0)] {
        let calls = 240;
        let (took, refused) = make(calls, &mut Aws { rate, burst, tokens: burst });
        let least = (calls as f64 - burst) / rate;
        assert!(took.as_secs_f64() < least * 1.6, "{rate}: {took:?}, at least {least} s");
        assert!(refused < calls, "{rate}: {refused} of {calls} refused");
    }
    let (took, refused) = make(300, &mut Aws { rate: 100.0, burst: 500.0, tokens: 500.0 });
    assert_eq!((took.as_millis().div_ceil(1000), refused), (10, 0), "{took:?}");
}

proptest! {
    #[test]
    fn never_more_calls_than_the_rate_and_the_burst_allow(
        events in prop::collection::vec((0..2000_u64, prop::bool::weighted(0.1)), 1..60),
    ) {
        let mut bucket = Bucket::new(RATE, Duration::ZERO);
        let (mut now, mut taken) = (Duration::ZERO, Vec::new());
        for (wait, refuse) in events {
            now += millis(wait);
            if refuse {
                bucket.refused(now, None);
            } else {
                while bucket.take(now).is_ok() {
                    taken.push(now);
                }
            }
            prop_assert!((SLOWEST..=RATE.per_second).contains(&bucket.rate()));
        }
        for (index, from) in taken.iter().enumerate() {
            for (count, until) in (1..).zip(&taken[index..]) {
                let within = until.saturating_sub(*from);
                let most = RATE.burst + RATE.per_second * within.as_secs_f64();
                prop_assert!(f64::from(count) <= most + 1e-6, "{count} calls within {within:?}");
            }
        }
    }

    #[test]
    fn whoever_waits_as_long_as_told_gets_a_turn_if_nothing_is_refused_meanwhile(
        refusals in prop::collection::vec((0..3000_u64, prop::option::of(0..5000_u64)), 0..20),
    ) {
        let mut bucket = Bucket::new(RATE, Duration::ZERO);
        let mut now = Duration::ZERO;
        for (wait, after) in refusals {
            now += millis(wait);
            bucket.refused(now, after.map(millis));
        }
        // Once for AWS's own time, once for the token, and once for what is lost in rounding.
        for _ in 0..3 {
            let Err(wait) = bucket.take(now) else { return Ok(()) };
            prop_assert!(wait <= Duration::from_secs(8), "{wait:?}");
            now += wait;
        }
        prop_assert!(bucket.take(now).is_ok());
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_makes_no_tokens(steps in prop::collection::vec(0..1000_u64, 1..50)) {
        let mut bucket = Bucket::new(RATE, millis(1000));
        while bucket.take(millis(1000)).is_ok() {}
        for step in steps {
            prop_assert!(bucket.take(millis(step)).is_err());
        }
    }
}
