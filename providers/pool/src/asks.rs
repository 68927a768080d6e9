//! Whom a Service asks, by who serves it.

use berth_provider::class::{ProviderName, Served};

use crate::view::Asks;

impl From<&Served> for Asks {
    fn from(served: &Served) -> Self {
        match served {
            Served::By(ProviderName::Pool) => Self::Us,
            Served::By(_) => Self::AnotherProvider,
            Served::Elsewhere | Served::Unknown(_) => Self::Nobody,
        }
    }
}
