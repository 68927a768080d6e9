//! Documents as ARM has them, and how a part of one is changed while all the rest stays as it was.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// The value under a path of fields.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(*field)).filter(|value| !value.is_null())
}

/// The text under a path of fields.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str()
}

/// The name of a resource or of a part of one.
pub fn name(value: &Value) -> &str {
    text(value, &["name"]).unwrap_or_default()
}

/// The ETag.
pub fn etag(value: &Value) -> Option<&str> {
    text(value, &["etag"])
}

/// The address under a path of fields.
pub fn address(value: &Value, path: &[&str]) -> Option<IpAddr> {
    text(value, path)?.parse().ok()
}

/// A number of a port, which some answers have as text.
pub fn port(value: &Value, path: &[&str]) -> Option<u16> {
    let value = at(value, path)?;
    value.as_u64().and_then(|port| u16::try_from(port).ok()).or_else(|| value.as_str()?.parse().ok())
}

/// The parts of a kind that a resource has.
pub fn parts<'a>(value: &'a Value, kind: &str) -> &'a [Value] {
    at(value, &["properties", kind]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The same, to be changed. There are none unless it is a resource.
pub fn parts_mut<'a>(value: &'a mut Value, kind: &str) -> Option<&'a mut Vec<Value>> {
    let properties = value.as_object_mut()?.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let list = properties.as_object_mut()?.entry(kind).or_insert_with(|| Value::Array(Vec::new()));
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut()
}

/// Whether two values mean the same to ARM: paths of resources are equal whatever their case.
fn same(field: &str, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) if field == "id" => a.eq_ignore_ascii_case(b),
        // Words of ARM are read in any case.
        (Value::String(a), Value::String(b)) if field == "protocol" => a.eq_ignore_ascii_case(b),
        _ => a == b,
    }
}

/// Lays what is wanted over what is there: fields that are not mentioned stay, `null` takes a field away, lists are whole.
/// Returns whether anything changed.
pub fn overlay(there: &mut Value, wanted: &Value) -> bool {
    let Value::Object(fields) = wanted else {
        let differs = there != wanted;
        if differs {
            *there = wanted.clone();
        }
        return differs;
    };
    if !there.is_object() {
        *there = Value::Object(Map::new());
    }
    let Some(into) = there.as_object_mut() else { return false };
    let mut changed = false;
    for (field, value) in fields {
        match (into.get_mut(field), value) {
            (None, Value::Null) => {}
            (Some(old), Value::Null) => {
                // What is null already is as good as not there.
                if !old.is_null() {
                    into.remove(field);
                    changed = true;
                }
            }
            (Some(old), value) if value.is_object() && old.is_object() => changed |= overlay(old, value),
            (Some(old), value) => {
                if !same(field, old, value) {
                    *old = value.clone();
                    changed = true;
                }
            }
            (None, value) => {
                into.insert(field.clone(), without_nulls(value));
                changed = true;
            }
        }
    }
    changed
}

/// What is to be made new: nothing is taken away from it.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(field, value)| (field.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_overlay_changes_what_it_names_and_nothing_else() {
        for (there, wanted, expected, changed) in [
            (json!({"a": 1, "x": {"y": [1]}}), json!({"a": 1}), json!({"a": 1, "x": {"y": [1]}}), false),
            (json!({"a": 1, "x": 2}), json!({"a": 3}), json!({"a": 3, "x": 2}), true),
            (
                json!({"p": {"id": "/A/b", "new": 1}}),
                json!({"p": {"id": "/a/B"}}),
                json!({"p": {"id": "/A/b", "new": 1}}),
                false,
            ),
            (json!({"protocol": "tcp"}), json!({"protocol": "Tcp"}), json!({"protocol": "tcp"}), false),
            (json!({"a": 1}), json!({"a": null}), json!({}), true),
            (json!({"a": null}), json!({"a": null}), json!({"a": null}), false),
            (json!({}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}}), true),
            (json!({"l": [1, 2]}), json!({"l": [2]}), json!({"l": [2]}), true),
        ] {
            let mut result = there.clone();
            assert_eq!(overlay(&mut result, &wanted), changed, "{there} under {wanted}");
            assert_eq!(result, expected);
        }
    }
}
