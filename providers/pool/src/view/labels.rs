//! Labels in one piece.

use crate::ipam::Labels;

/// Labels as one text. A map of one label is a node with room for eleven, and a text for each key and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedLabels(Box<str>);

/// Between key and value, and behind a value. Neither can have them (labels API).
const IS: char = '=';
const END: char = '\n';

impl PackedLabels {
    /// Packs them.
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut text = String::new();
        for (key, value) in labels {
            text.push_str(key);
            text.push(IS);
            text.push_str(value);
            text.push(END);
        }
        Self(text.into_boxed_str())
    }

    /// As they were.
    pub fn unpacked(&self) -> Labels {
        let pairs = self.0.split_terminator(END).filter_map(|line| line.split_once(IS));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unpacked_as_they_were() {
        for labels in [&[][..], &[("app", "web")], &[("a.example/b", ""), ("app", "web-1.2_3")]] {
            let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(PackedLabels::of(&labels).unpacked(), labels);
        }
    }
}
