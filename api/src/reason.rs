//! Reason codes: one stable word for everything that Berth says on a condition, an event or a metric.
//!
//! `docs/reference/reasons.md` is generated from [`Reason::ALL`].

use std::fmt;

macro_rules! reasons {
    ($($name:ident => $text:literal,)*) => {
        /// Why something is as it is. The name of the variant is the code that users see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $text] $name,)* }

        impl Reason {
            /// Every reason, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code that users see.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What the code means and what to do, for the reference page.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    // Services: allocation.
    Allocated => "The Service holds the address in its status.",
    Released => "The Service no longer asks for an address from Berth, so the one it held is free again.",
    NoPool => "There is no IPAddressPool that this Service may take an address from. Create one, or set `autoAssign: true` on one.",
    PoolNotFound => "The pool that the Service names does not exist. Correct the `berth.dev/address-pool` annotation or create the pool.",
    PoolNotReady => "The pool that would serve the request has an invalid specification; its own Ready condition says what is wrong.",
    PoolDisabled => "The pool that would serve the request is disabled (`spec.disabled`): it keeps what is held and gives nothing new. Enable it, or use another.",
    PoolNotAdmitted => "The pool that would serve the request is not for this Service (`spec.serviceAllocation`). Let the pool admit it, or use another. A Service that held an address of it loses it, because a pool is used by nobody whom it does not admit.",
    PoolExhausted => "Every address of the pools this Service may use is held, or was a moment ago and cools down (`coolDownSeconds`). Enlarge a pool or release an address.",
    InvalidRequest => "What the Service asks for cannot be read, such as text where an IP address belongs. Correct the field or annotation that the message names.",
    AddressOutsidePools => "The requested address lies in no IPAddressPool. Ask for one that does, or add it to a pool.",
    AddressNotInPool => "The requested address is not part of the requested pool. Change one of the two.",
    PoolsDiffer => "Addresses of two pools are requested, and both addresses of a Service come from one. Ask for two of one pool.",
    NoDualStackPool => "No IPAddressPool that this Service may use has a free address of each family, and both addresses of a Service come from one pool. Add the other family to one.",
    BuggyAddress => "The requested address ends in .0 or .255, and its pool leaves those out (`avoidBuggyIPs`). Ask for another.",
    CoolingDown => "The requested address was released a moment ago, and its pool gives it to nobody for a while (`coolDownSeconds`). It is given as soon as that has passed.",
    Quarantined => "A machine that is none of our nodes was found to have the address before its first use, so it is given to nobody for a while. Another one is given to who asks for none in particular; who asks for this one waits. The message names the machine's Ethernet address: take the address from it, or from the pool.",
    AddressInUse => "The requested address is held by another Service, which the message names.",
    ClaimRefused => "The API server refuses what Berth has to write to claim the address, by a rule that the message names. What the Service has stays, and it is tried again.",
    SharingKeyDiffers => "The requested address is shared, by another key (`berth.dev/allow-shared-ip`). Use the same key, or ask for another address.",
    SharingNamespaceDiffers => "The requested address is shared within another namespace: one of the Services, or the pool (`sharing: Namespace`), does not share across namespaces.",
    SharingPortTaken => "A Service that shares the requested address has one of the ports already. Change the port, or ask for another address.",
    SharingPolicyDiffers => "The requested address is shared by a Service with another `externalTrafficPolicy`, or with Local and another selector, so one node could not answer for both.",
    SharerNotSelected => "The address is shared by Services that no L2Advertisement announces together with this one (`serviceSelectors`), and a node that answers for an address answers for all Services on it. Give them labels that one advertisement selects, or ask for another address. A Service that shared the address gets another, or loses it; those that came first keep it.",
    SharingFull => "The requested address is shared by 256 Services already, which is the most. Ask for another address.",
    SharingUnsupported => "The Service asks to share an address, which its provider does not do. Ask for an address of its own.",
    SubnetAddress => "The requested address is the network or broadcast address of a subnet of the nodes, or its subnet-router anycast address (RFC 4291 section 2.6.1), which no host on it can have. Ask for another.",
    AddressPending => "The requested address is claimed and not answered for yet; the one that the Service holds stays until it is.",
    FamilyUnavailable => "No IPAddressPool that this Service may use has addresses of a family that the Service needs. Add some to one.",
    FamilyMismatch => "An address is requested of a family that the Service does not have (`spec.ipFamilies`). Correct the request, or make the Service dual-stack.",
    // Services: announcement.
    NoServingEndpoints => "Nodes are named that answer for the address, and the Service has no endpoint that serves: connections are refused. Look at its selector and at the readiness of its pods.",
    Announced => "At least one node is eligible and one of them is named as the owner that answers for the address.",
    DrainBlocked => "A node that is being drained goes on answering for the address, because no other node can; the message says what stands against the others. It moves as soon as one can.",
    MoveRefused => "The annotation `berth.dev/move-to` of the Announcement asks for a node that cannot answer for the address; the message says why, and the address stays. Correct or remove the annotation.",
    NoAdvertisement => "No L2Advertisement and no RouteAdvertisement covers the pool of this address, so no node answers for it. Create one.",
    ServiceNotSelected => "Every L2Advertisement that covers the pool of this address has `serviceSelectors`, and none selects the Service, or of those that share the address the first, so no node answers. Give the Service a label that one selects, or correct the selectors.",
    AllNodesExcluded => "Every node that could answer has the label `node.kubernetes.io/exclude-from-external-load-balancers`, which kubeadm gives to control-plane nodes. Remove the label from nodes that are to answer, or run the controller with `--ignore-exclude-lb`.",
    NodeNetworksUnavailable => "Every node that could answer has the condition `NetworkUnavailable`, or is excluded by its label: its pod network is not set up. Look at the network plugin on those nodes.",
    NoEligibleNode => "No node can answer for the address: the message says why each was left out.",
    NoLocalEndpoints => "`externalTrafficPolicy: Local`, and no node has a serving endpoint of the Service.",
    // Services: announcement, and the kernels of nodes.
    ArpIgnore => "kube-proxy runs in IPVS mode, which puts every address of a Service on `kube-ipvs0` of every node, and the kernels of the nodes that the message names answer ARP for them beside the owner. Set `ipvs.strictARP: true` in kube-proxy's configuration, which sets `net.ipv4.conf.all.arp_ignore` to 1, or set that on the nodes.",
    ReversePathFilter => "The node that answers drops what comes from beyond the subnet of the address, because `rp_filter` is strict (1) on the interface and the node's routes to there lead over another. Set it to 2 (loose) on that interface, or give the node a route over it.",
    // Services: announcement by routes.
    RoutesNotPermitted => "A RouteAdvertisement covers the pool of this address, and no speaker of a node that could route it may make routes. Install Berth with the component `deploy/routes`, which starts the speakers with `--routes` and the capability NET_ADMIN.",
    RouteInterfaceMissing => "The interface that a RouteAdvertisement names is not on the nodes that the message names, or it names none and they have no default route in the family of the address. Make the interface, correct `spec.interface`, or select other nodes (`spec.nodeSelectors`).",
    RouteTaken => "The nodes that the message names have the very same route already, or the address on an interface, and it is not Berth's, so it is left alone. Remove it, or let the RouteAdvertisement use another `metric` or `table`.",
    OnLinkAddress => "A RouteAdvertisement of form Address would put an address on an interface of the nodes that the message names, and the address is of a subnet of these nodes: all of them would answer for it there. Set `arp_ignore` to at least 1 on the interfaces of that subnet and use another interface, use form Route, or use a pool outside of all subnets.",
    KernelTooOld => "The kernel of the nodes that the message names is older than 5.18 and cannot mark addresses as Berth's, so form Address is not possible there. Use form Route.",
    RouteFailed => "The kernel of the nodes that the message names refused the route or address; the message says how. It is tried again.",
    // Services: any provider.
    Provisioning => "The provider is making what the Service asks for; this takes as long as the other side needs.",
    ProviderConflict => "What the provider wanted to change had changed meanwhile; it looks again and plans anew.",
    ProviderThrottled => "The other side asks for fewer calls; they are made more slowly.",
    ProviderUnavailable => "The other side did not answer or failed; it is tried again. What is there stays.",
    PermissionDenied => "The provider lacks a right, which the message names. Grant it; it is tried again every minute.",
    Unsupported => "The provider does not do what the Service asks for; the message names it. Remove it, or choose another `spec.loadBalancerClass`.",
    CloudNotAdmitted => "The Service asks for something that its namespace may not have: a load balancer that the internet reaches, or one that uses an existing subnet, address or security group. The message names the flag by which an operator admits it.",
    GroupDiffers => "The Service shares a load balancer (`berth.dev/load-balancer-group`) with an older one and asks for another load balancer than that one does. The message says in what they differ; make them equal, or leave the group.",
    ReplacementNeeded => "What the Service asks for can only be had by replacing a cloud object, which interrupts its traffic. Set `berth.dev/allow-replacement: \"true\"`, or take the change back; what is there stays until then.",
    DeletionProtected => "The load balancer is protected against deletion, and so stays. Remove the protection; it is tried again then.",
    CloudNameTaken => "Something in the cloud that is not this Service's has the name that is asked for. It is left alone; ask for another name.",
    CloudInUse => "Something of this Service in the cloud cannot be deleted for minutes, because something else uses it. The message names it and says how to find what uses it; take that away. It is tried again each minute.",
    CloudLimit => "A limit on what may be had in the cloud is reached, the cloud's own or the operator's. The message names it; raise it or need less.",
    NoSubnet => "No subnet is fit for the load balancer. The message says of each one why it was left out.",
    Active => "The load balancer takes traffic.",
    NoTargets => "The load balancer has no target, so nobody answers: no node takes traffic from outside, or the Service has no endpoint that is ready. Look at the nodes' labels and taints, or at the Service's selector and the readiness of its pods.",
    TargetsHealthy => "The load balancer finds its targets healthy.",
    TargetsInitial => "The load balancer is checking new targets, and sends them nothing before that is done.",
    NoHealthyTargets => "The load balancer finds none of its targets healthy; the message names some. Look at the health check, at the security groups of nodes and pods, and at the pods.",
    TargetsUnhealthy => "The load balancer finds some targets not healthy and sends them nothing; the message names some. Look at the health check, at the security groups of nodes and pods, and at the pods.",
    TargetsRefused => "The cloud does not take any of the targets; the message names some. An instance has to run in the load balancer's VPC.",
    // Pods: readiness gates.
    GateUnserved => "A readiness gate of the pod names a Service of the pod's namespace that Berth gives no load balancer in AWS: there is none of that name, its class is another one, or it is disowned. The pod waits until there is one: create it, or remove the gate from the pod's template.",
    GateNeedsAddresses => "A readiness gate of the pod names a Service whose load balancer sends traffic to nodes, not to pods, so nothing is known of this pod. Let the Service have the annotation `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or remove the gate from the pod's template.",
    NotATarget => "A readiness gate of the pod names a Service that the pod takes no traffic of: the selector does not select the pod, or the pod has none of the Service's ports, or no address of the Service's first family. Correct the Service, or remove the gate from the pod's template.",
    UnknownClass => "`spec.loadBalancerClass` begins as Berth's do and is none of them, so nobody serves the Service. Correct it.",
    // Pools and advertisements.
    Valid => "The specification is valid and in use.",
    InvalidAddress => "An entry of `spec.addresses` is neither a CIDR nor a range of addresses, or has addresses that no Service can have, such as loopback or multicast.",
    HostBitsSet => "A CIDR of `spec.addresses` has bits set behind its prefix, so it does not say clearly which addresses are meant. The API server refuses it when it is applied; a pool that exists has both readings in its message.",
    RangeReversed => "A range of `spec.addresses` ends before it starts.",
    NoAddresses => "`spec.addresses` is empty.",
    Overlap => "An address of this pool is also part of another entry, or of an older pool, which goes on serving it.",
    NodeAddress => "An address of this pool is a node's own address; giving it to a Service would cut that node off.",
    GatewayAddress => "An address of this pool is a gateway of a node; giving it to a Service would cut that node off.",
    PodNetwork => "Addresses of this pool are for pods (`spec.podCIDRs` of a Node); traffic to them would go to the pod network.",
    ServiceNetwork => "Addresses of this pool are for the cluster IPs of Services (a ServiceCIDR).",
    Disabled => "The pool gives nothing new because `spec.disabled` is set; what Services hold they keep.",
    InvalidSelector => "A label selector cannot be read.",
    LeftToLayer2 => "An L2Advertisement covers pools of this RouteAdvertisement too, and what nodes answer for on the link is not taken from them. The addresses of these pools are not routed. Let one of the two cover other pools.",
    InvalidInterface => "An entry of `spec.interfaces` is neither a name of an interface nor a pattern, so it stands for none. The others count.",
    InvalidPreference => "An entry of `spec.preferredNodeSelectors` cannot be read, or its weight is not from 1 to 100. It is passed over, and the rest counts.",
    // Announcements.
    Probing => "The wire is being asked whether anybody else answers for the address.",
    Answering => "The owner answers for the address.",
    AddressConflict => "A machine that is none of our nodes answers for the address; the message names its Ethernet address.",
    NotServing => "The owner answers for the address, although for a second and a half nothing showed that its node forwards the Service's traffic, and a better one was not named. Look at kube-proxy on that node.",
    TookOver => "The owner fell silent or stopped, and a standby took over.",
    CaredFor => "The speaker of the owner is silent or stopped while its node lives, so a standby answers in its place, with the Ethernet address of the owner's node: nothing moves, and no connection breaks. When it is not back within 30 s, the address moves.",
    Heard => "Partners are heard as regularly as they should.",
    NoTraps => "No setting of the node's kernel is found any more that breaks what is announced.",
    HeartbeatsLate => "Partners fell silent again and again and were alive each time, so they are given more time, and a takeover from them takes longer. The message names them: look at the load of their nodes and at the link between.",
    Withdrawn => "The node that answered has no part in the address any more, and no other node has claimed it.",
    OwnerChanged => "The controller named another owner.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
