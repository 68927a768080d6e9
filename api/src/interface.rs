//! Which network interfaces are meant: by name, or by a pattern for several.

use std::str::FromStr;

/// Longest name of an interface: IFNAMSIZ is 16 with the zero at its end (netdevice(7)).
pub const NAME_MAX: usize = 15;
/// Longest pattern: that of a name with a `*` before, behind and between its characters.
pub const PATTERN_MAX: usize = 2 * NAME_MAX + 1;

/// Stands for any characters, or none.
const MANY: u8 = b'*';
/// Stands for one character.
const ONE: u8 = b'?';

/// A name of an interface, or a pattern: `*` stands for any characters or none, `?` for one. Upper and lower case differ.
///
/// # Examples
/// ```
/// use berth_api::interface::InterfacePattern;
///
/// let bonds: InterfacePattern = "bond0.?".parse().unwrap();
/// assert!(bonds.matches("bond0.7") && !bonds.matches("bond0") && !bonds.matches("bond0.70"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfacePattern(Box<str>);

/// Why a text is no name of an interface and no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfacePatternError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// No name is as long.
    #[error("no name of an interface is longer than {NAME_MAX} bytes")]
    TooLong,
    /// The kernel takes no name with it (`dev_valid_name`).
    #[error("no name of an interface has a slash, a colon or white space")]
    NotInNames,
}

impl FromStr for InterfacePattern {
    type Err = InterfacePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let least = text.bytes().filter(|byte| *byte != MANY).count();
        if text.is_empty() {
            Err(InterfacePatternError::Empty)
        } else if text.len() > PATTERN_MAX || least > NAME_MAX {
            Err(InterfacePatternError::TooLong)
        } else if text.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace()) {
            Err(InterfacePatternError::NotInNames)
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl InterfacePattern {
    /// Whether it stands for this interface.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut done) = (0, 0);
        // Behind the last `*`, and how much of the name that stands for so far: one more where what follows does not fit.
        let mut retry = None;
        while done < name.len() {
            match pattern.get(at) {
                Some(&MANY) => {
                    at += 1;
                    retry = Some((at, done));
                }
                Some(&byte) if byte == ONE || byte == name[done] => {
                    at += 1;
                    done += 1;
                }
                _ => {
                    let Some((behind, taken)) = retry else { return false };
                    (at, done) = (behind, taken + 1);
                    retry = Some((behind, done));
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == MANY)
    }
}

/// The interfaces of a node that may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// All.
    #[default]
    All,
    /// Those for which one of these stands; none where there are none.
    Only(Vec<InterfacePattern>),
}

impl Interfaces {
    /// Whether this one is among them.
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_names() {
        for (pattern, yes, no) in [
            ("eth0", &["eth0"][..], &["eth", "eth00", "Eth0", "xeth0"][..]),
            ("eth*", &["eth", "eth0", "eth10"], &["et", "xeth0"]),
            ("*", &["eth0", "a"], &[]),
            ("*.7", &["bond0.7", ".7"], &["bond0.70", "bond0"]),
            ("bond0.?", &["bond0.7"], &["bond0.", "bond0.70"]),
            ("e*p*s?", &["enp3s0", "eps0"], &["enp3s", "enp3s10x"]),
            ("e*0", &["e0", "eth0", "en0s0"], &["eth01"]),
            ("a*ab", &["aab", "aaab", "abab"], &["ab", "aba"]),
            ("**0", &["0", "eth0"], &["eth1"]),
            // What means something to others and nothing here.
            ("en[0-9]", &["en[0-9]"], &["en0"]),
        ] {
            let pattern: InterfacePattern = pattern.parse().unwrap();
            for name in yes {
                assert!(pattern.matches(name), "{pattern:?} {name}");
            }
            for name in no {
                assert!(!pattern.matches(name), "{pattern:?} {name}");
            }
        }
    }

    #[test]
    fn what_no_interface_can_be_called_is_refused() {
        use InterfacePatternError::{Empty, NotInNames, TooLong};
        for (text, expected) in [
            ("enp129s0f0np123", None),
            ("enp129s0f0np1234", Some(TooLong)),
            ("*e*n*p*1*2*9*s*0*f*0*n*p*1*2*3*", None),
            ("********************************", Some(TooLong)),
            ("", Some(Empty)),
            ("eth0:1", Some(NotInNames)),
            ("eth 0", Some(NotInNames)),
            ("eth0\n", Some(NotInNames)),
            ("a/b", Some(NotInNames)),
        ] {
            assert_eq!(text.parse::<InterfacePattern>().err(), expected, "{text:?}");
        }
    }

    #[test]
    fn of_no_patterns_none_is_allowed() {
        assert!(Interfaces::default().allow("eth0"));
        assert!(!Interfaces::Only(Vec::new()).allow("eth0"));
        let only = |text: &str| Interfaces::Only(text.split(',').map(|p| p.parse().unwrap()).collect());
        assert!(only("eth1,bond*").allow("bond0") && !only("eth1,bond*").allow("eth0"));
    }
}
