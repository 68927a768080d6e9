//! Manifests that people read before they apply them: YAML with its comments, and names and numbers filled in from the crates
//! that define them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

/// What may stand in a template between `{{` and `}}`.
pub type Values = BTreeMap<&'static str, String>;

/// The template with every placeholder filled in.
///
/// # Errors
/// When it names a value that there is not, or a placeholder is not closed.
pub fn fill(template: &str, values: &Values) -> anyhow::Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { bail!("`{{{{` without `}}}}` in a template") };
        text.push_str(before);
        text.push_str(values.get(name).with_context(|| format!("no value `{name}` for a template"))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_in_or_named() {
        let values = Values::from([("a", "1".to_owned()), ("b", "2".to_owned())]);
        assert_eq!(fill("{{a}}: {x} {{b}}{{a}}\n", &values).unwrap(), "1: {x} 21\n");
        assert_eq!(fill("{{c}}", &values).unwrap_err().to_string(), "no value `c` for a template");
        assert!(fill("{{a", &values).is_err());
    }
}
