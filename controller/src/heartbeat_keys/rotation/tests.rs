use serde_json::{Value, json};

use super::*;

const FRESH: [u8; KEY_BYTES] = [0xF5; KEY_BYTES];
/// 2026-11-28T04:00:00Z.
const NOW: i64 = 1_795_838_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn key(number: u8) -> Vec<u8> {
    vec![number; KEY_BYTES]
}

/// A Secret with these keys and annotations, as it is read.
fn secret(keys: &[(&str, Vec<u8>)], annotations: Value) -> Secret {
    let mut secret: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "berth-heartbeat", "namespace": "berth-speaker", "uid": "u", "resourceVersion": "41",
            "labels": {"somebody": "else"}, "annotations": annotations,
            "managedFields": [{"manager": "berth-controller"}],
        },
        "type": "Opaque",
    }))
    .unwrap();
    secret.data = Some(keys.iter().map(|(name, bytes)| ((*name).to_owned(), ByteString(bytes.clone()))).collect());
    secret
}

/// What is in it: generations and the first byte of each key, and when the newest was made.
fn content(secret: &Secret) -> (Vec<(String, u8)>, String) {
    let mut keys: Vec<_> = secret.data.iter().flatten().map(|(name, bytes)| (name.clone(), bytes.0[0])).collect();
    keys.sort_by_key(|(name, _)| name.parse::<u32>().ok());
    (keys, secret.metadata.annotations.as_ref().and_then(|all| all.get(ROTATED_AT)).cloned().unwrap_or_default())
}

/// What is there, how often it is rotated, and what is written: why, the keys with their first bytes, and when the newest was made.
type Row<'a> = (&'a str, Option<Secret>, Rotation, Option<(Cause, Vec<(&'a str, u8)>, String)>);

fn never() -> Rotation {
    "0".parse().unwrap()
}

fn week() -> Rotation {
    "7d".parse().unwrap()
}

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

fn rotated(ago: i64) -> Value {
    json!({ "berth.dev/rotated-at": at(NOW - ago).to_string() })
}

fn asked(ago: i64) -> Value {
    json!({ "berth.dev/rotated-at": at(NOW - ago).to_string(), "berth.dev/rotate": "now" })
}

fn date(ago: i64) -> String {
    at(NOW - ago).to_string()
}

/// The key that is made.
fn new() -> (&'static str, u8) {
    let clock = "1795838400";
    assert_eq!(clock, NOW.to_string());
    (clock, 0xF5)
}

fn hold(table: Vec<Row<'_>>) {
    for (says, seen, rotation, expected) in table {
        let written = next(seen.as_ref(), &FRESH, rotation, at(NOW));
        let told = written.as_ref().map(|(cause, secret)| {
            let (keys, date) = content(secret);
            (cause.clone(), keys, date)
        });
        let owned =
            |keys: Vec<(&str, u8)>| keys.into_iter().map(|(name, key)| (name.to_owned(), key)).collect::<Vec<_>>();
        assert_eq!(told, expected.map(|(cause, keys, date)| (cause, owned(keys), date)), "{says}");
        let Some((cause, written)) = written else { continue };
        if let Some(seen) = seen {
            let meta = |secret: &Secret| {
                let metadata = secret.metadata.clone();
                (metadata.resource_version, metadata.uid, metadata.labels)
            };
            assert_eq!(meta(&written), meta(&seen), "{says}: fenced by its version, and what others wrote stays");
        } else {
            assert_eq!(written.metadata.resource_version, None, "{says}: created");
        }
        // Whatever was done is done: the next looks find nothing to do.
        for later in [0, 1, 10 * MINUTE - 1] {
            assert_eq!(next(Some(&written), &FRESH, rotation, at(NOW + later)), None, "{says}: {later} s later");
        }
        let asked = written.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(ROTATE));
        assert!(!(asked && matches!(cause, Cause::Asked | Cause::Due)), "{says}: what was asked for is done");
        let due = next(Some(&written), &FRESH, rotation, at(NOW + 10 * MINUTE)).is_some();
        assert_eq!(due, asked, "{says}: only what was asked for and had to wait is done then");
    }
}

#[test]
fn a_new_key_is_made_when_the_last_one_is_old_or_somebody_asks() {
    let two = |annotations| Some(secret(&[("8", key(8)), ("9", key(9))], annotations));
    let four = [("1", key(1)), ("2", key(2)), ("3", key(3)), ("4", key(4))];
    let rotation = |cause| Some((cause, vec![("9", 9), new()], date(0)));
    hold(vec![
        ("two keys of today", two(rotated(0)), week(), None),
        ("a moment before they are due", two(rotated(7 * DAY - 1)), week(), None),
        ("due", two(rotated(7 * DAY)), week(), rotation(Cause::Due)),
        ("long due", two(rotated(400 * DAY)), week(), rotation(Cause::Due)),
        ("never due", two(rotated(400 * DAY)), never(), None),
        ("asked for", two(asked(DAY)), week(), rotation(Cause::Asked)),
        ("asked for where it is never due", two(asked(DAY)), never(), rotation(Cause::Asked)),
        ("asked for too soon", two(asked(10 * MINUTE - 1)), week(), None),
        ("asked for soon enough", two(asked(10 * MINUTE)), week(), rotation(Cause::Asked)),
        ("one key, due", Some(secret(&[("9", key(9))], rotated(8 * DAY))), week(), rotation(Cause::Due)),
        (
            "four keys of somebody's own, due",
            Some(secret(&four, rotated(8 * DAY))),
            week(),
            Some((Cause::Due, vec![("4", 4), new()], date(0))),
        ),
    ]);
}

#[test]
fn a_secret_is_made_dated_and_mended_and_a_key_that_can_be_read_stays() {
    let two = |annotations| Some(secret(&[("8", key(8)), ("9", key(9))], annotations));
    let five = [("1", key(1)), ("2", key(2)), ("3", key(3)), ("4", key(4)), ("5", key(5))];
    let text = |name: &str| KeysError::Name(name.to_owned());
    let only_new = |cause| Some((cause, vec![new()], date(0)));
    let dated = || Some((Cause::Dated, vec![("8", 8), ("9", 9)], date(0)));
    hold(vec![
        ("there is none", None, week(), only_new(Cause::Made)),
        ("there is none, and it is never rotated", None, never(), only_new(Cause::Made)),
        ("without a date", two(json!({})), week(), dated()),
        (
            "without a date, and asked for: a rotation may have been a moment ago",
            two(json!({ "berth.dev/rotate": "" })),
            week(),
            dated(),
        ),
        ("with a date that is none", two(json!({ "berth.dev/rotated-at": "yesterday" })), week(), dated()),
        ("with a date of the future", two(rotated(-5)), week(), dated()),
        ("nothing in it", Some(secret(&[], rotated(DAY))), week(), only_new(Cause::Replaced(KeysError::None))),
        (
            "nothing of use in it",
            Some(secret(&[("key", key(1))], rotated(DAY))),
            never(),
            only_new(Cause::Replaced(text("key"))),
        ),
        (
            "something wrong beside a key",
            Some(secret(&[("9", key(9)), ("key", key(1))], rotated(DAY))),
            week(),
            Some((Cause::Mended(text("key")), vec![("9", 9)], date(DAY))),
        ),
        (
            "too many",
            Some(secret(&five, rotated(DAY))),
            week(),
            Some((Cause::Mended(KeysError::TooMany), vec![("4", 4), ("5", 5)], date(DAY))),
        ),
    ]);
}

#[test]
fn a_generation_is_higher_than_those_before_it_whatever_the_clock_says() {
    for (newest, now, expected) in [
        (None, NOW, Some(u32::try_from(NOW).unwrap())),
        (None, -5, Some(1)),
        (Some(7), NOW, Some(u32::try_from(NOW).unwrap())),
        (Some(4_000_000_000), NOW, Some(4_000_000_001)),
        (Some(7), 3, Some(8)),
        (Some(u32::MAX), NOW, None),
    ] {
        assert_eq!(generation_after(newest, at(now)), expected, "{newest:?} at {now}");
    }
}

#[test]
fn rotation_after_rotation_any_two_neighbours_have_a_key_in_common() {
    let rotation: Rotation = "10m".parse().unwrap();
    let mut secret = next(None, &[0; KEY_BYTES], rotation, at(NOW)).unwrap().1;
    for round in 1..50u8 {
        let now = at(NOW + i64::from(round) * 600);
        let (cause, after) = next(Some(&secret), &[round; KEY_BYTES], rotation, now).unwrap();
        assert_eq!(cause, Cause::Due);
        let named = |secret: &Secret| content(secret).0;
        let common: Vec<_> = named(&after).into_iter().filter(|key| named(&secret).contains(key)).collect();
        assert_eq!((common.len(), common[0].1, named(&after).len()), (1, round - 1, 2));
        secret = after;
    }
}

#[test]
fn a_time_between_rotations_is_long_enough_or_never() {
    let minutes = |minutes: u64| Ok(Rotation(Some(Duration::from_mins(minutes))));
    let wrong = |text: &str| Err(RotationError(text.to_owned()));
    for (text, expected) in [
        ("7d", minutes(7 * 24 * 60)),
        ("1w", minutes(7 * 24 * 60)),
        ("168h", minutes(7 * 24 * 60)),
        ("1h30m", minutes(90)),
        ("10m", minutes(10)),
        ("0", Ok(Rotation(None))),
        ("0s", Ok(Rotation(None))),
        ("9m59s", wrong("9m59s")),
        ("-7d", wrong("-7d")),
        ("7", wrong("7")),
        ("", wrong("")),
        ("soon", wrong("soon")),
        ("1mo", wrong("1mo")),
    ] {
        assert_eq!(text.parse::<Rotation>(), expected, "{text:?}");
    }
}
