//! What the plugin finds by itself, beside the reasons that Berth writes on objects: one stable code each.

macro_rules! findings {
    ($($name:ident => $text:literal,)*) => {
        /// Something that the plugin found. The name of the variant is the code that users see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Finding { $(#[doc = $text] $name,)* }

        impl Finding {
            /// Every finding, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code that users see.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What the code means and what to do.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

findings! {
    // The installation.
    NotInstalled => "The API server does not know Berth's kinds. Install Berth, or choose another cluster with `--context`.",
    ControllerMissing => "There is no Deployment `berth-controller` in namespace `berth-system`. Install it: without it nothing new is given an address; what is announced stays so.",
    ControllerNotReady => "No replica of the controller is ready. Look at its pods: `kubectl -n berth-system get pods`.",
    ControllerDegraded => "Fewer replicas of the controller are ready than wanted. Look at its pods: `kubectl -n berth-system get pods`.",
    NoLeader => "No replica of the controller renews the Lease `berth-system/berth-controller`, so none writes. Look at the logs of its pods.",
    SpeakersMissing => "There is no DaemonSet `berth-speaker` in namespace `berth-speaker`. Install it: without it no node answers for an address.",
    SpeakersNotReady => "The speaker is not ready on every node. Look at its pods: `kubectl -n berth-speaker get pods -o wide`.",
    SpeakerSilent => "The speaker of a node has not reported what the node has, so the node takes no part. Look at the logs of its pod.",
    NotSeen => "The controller has said nothing about the object. Look at whether it runs: `kubectl berth status`.",
    // Services.
    NotLoadBalancer => "The Service is not of type LoadBalancer, so nobody gives it an address. Set `spec.type: LoadBalancer`.",
    OtherClass => "The class of the Service is not Berth's: another controller serves it. The class can be changed only by creating the Service again.",
    NoClass => "The Service names no class, and Berth's controller does not serve such Services. Create it with `loadBalancerClass: berth.dev/pool`, or run the controller with `--default-provider pool`.",
    ProviderOff => "The class of the Service is one of Berth's, and the controller runs without the provider that serves it. Switch it on by `--providers`, or create the Service with another class.",
    BeingDeleted => "The Service is being deleted; it waits for its finalizers.",
    Behind => "What the controller said is about an earlier generation of the Service. Ask again in a moment; if it stays so, look at whether the controller runs.",
    NoAnnouncement => "No Announcement claims the address, so no node is asked to answer for it. The controller makes it again as soon as it runs.",
    AnotherHolder => "The Announcement of the address belongs to another Service, so traffic goes there. The controller takes the address out of this Service's status as soon as it runs.",
    NoOwner => "No node is named to answer for the address. The condition `berth.dev/Announced` of the Service says why.",
    NotAnswering => "The owner has not said that it answers for the address. Look at its speaker: `kubectl -n berth-speaker get pods -o wide`.",
    NodeNotReady => "The node that answered last is not Ready, and no other has said that it took over. What the status says may be old.",
    NotInStatus => "The address is claimed and not in the status of the Service, so users cannot find it. The controller writes it as soon as it runs.",
    NoEndpoints => "No pod serves the Service. Compare its selector with the labels of the pods, and look at whether they are ready.",
    NoEndpointsOnNode => "With `externalTrafficPolicy: Local` only pods on the node that answers serve, and it has none. The controller moves the address to a node that has one.",
    // Plans.
    NotSettled => "Planning did not come to an end, so what becomes of the Service cannot be said. Please report it with the files.",
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_means_two_things() {
        let reasons = berth_api::Reason::ALL.iter().map(|reason| reason.as_str());
        let mut codes: Vec<_> = Finding::ALL.iter().map(|finding| finding.as_str()).chain(reasons).collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }
}
