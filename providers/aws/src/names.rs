//! The names of cloud objects. They only have to differ: what is whose is said by tags.

use sha2::{Digest as _, Sha256};

use crate::cloud::Pairs;
use crate::tags::{self, Resource};

/// Hexadecimal digits of a digest: enough that two names of one account never meet by chance.
const DIGITS: usize = 10;
/// Letters of the namespace and of the name each. With `berth-`, two dashes and the digest that makes 32, which is the most that AWS
/// lets load balancers and target groups have.
const STEM: usize = 7;

/// The beginning of the SHA-256 of these parts, in hexadecimal digits.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With its length, so that no two lists of parts read the same.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    hash.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).take(DIGITS).collect()
}

/// A name with the beginnings of two words that people know, and a digest.
pub fn name(first: &str, second: &str, digest: &str) -> String {
    let stem = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).take(STEM).collect::<String>();
    format!("berth-{}-{}-{digest}", stem(first), stem(second))
}

/// Whether a load balancer's name is one that [`name`] made of what its tags say.
pub fn is_ours(name: &str, tags: &Pairs) -> bool {
    match tags::resource(tags) {
        Some(Resource::LoadBalancer { digest }) => name.ends_with(&digest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_longer_than_aws_lets_it_be() {
        let digest = digest(&["cluster", "a", "b"]);
        assert_eq!(name("default", "nlb-ip-svc-tls", &digest), "berth-default-nlbipsv-".to_owned() + &digest);
        assert_eq!(name(&"n".repeat(63), &"s".repeat(63), &digest).len(), 32);
    }

    #[test]
    fn a_digest_is_the_same_for_ever_because_what_is_there_is_found_by_it() {
        assert_eq!(digest(&["uid", "shop/service/web"]), "dad7f24e87");
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
    }
}
