//! Which nodes said that they cannot route an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::crd::RefusedRoute;

use super::World;

impl World {
    /// The nodes that cannot route an address, and why.
    pub fn refused_routes(&self, address: IpAddr) -> BTreeMap<&str, &RefusedRoute> {
        let all = self
            .reports
            .iter()
            .flat_map(|(node, report)| report.refused.iter().map(move |refused| (node.as_str(), refused)));
        all.filter(|(_, refused)| refused.address == address).collect()
    }

    /// Puts those in line whose addresses a node refuses now, or does not any more, or for another reason.
    pub(super) fn learn_refused(&mut self, before: &[RefusedRoute], after: &[RefusedRoute]) {
        let news =
            before.iter().filter(|one| !after.contains(one)).chain(after.iter().filter(|one| !before.contains(one)));
        let addresses: BTreeSet<_> = news.map(|refused| refused.address).collect();
        let tenants = addresses.iter().flat_map(|address| self.ipam.tenants(*address));
        let holders: Vec<_> = tenants.map(|tenant| tenant.service.clone()).collect();
        for holder in holders {
            self.mark(&holder);
        }
    }
}
