use serde_json::json;

use super::*;

fn read(texts: &[(&str, &str)]) -> Result<Snapshot, String> {
    let texts: Vec<_> = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Snapshot::read(&texts).map_err(|error| error.to_string())
}

fn subnet(id: &str, vpc: &str) -> Value {
    json!({
        "SubnetId": id, "VpcId": vpc, "AvailabilityZone": "eu-central-1a", "CidrBlock": "10.0.0.0/24", "AvailableIpAddressCount": 250,
    })
}

const ROUTES: &str = r#"{"RouteTables": []}"#;

#[test]
fn what_is_no_snapshot_is_refused_with_where_and_what_to_do() {
    let cases = [
        ("{", "a.json is no JSON: EOF while parsing an object"),
        ("[1]", "a.json holds something that is no object"),
        ("Subnets: []", "a.json is no JSON: expected value at line 1"),
        (
            r#"{"Subnet": []}"#,
            "a.json: `Subnet` is no key of a snapshot, which are Subnets, RouteTables, AvailabilityZones",
        ),
        (
            r#"{"Subnets": {}}"#,
            "a.json: `Subnets` is no list; write it as `aws ec2 describe-subnets --output json` prints it",
        ),
        (
            r#"{"RouteTables": [], "Subnets": [{"VpcId": "vpc-1"}]}"#,
            "a.json: Subnets[0]: missing field `SubnetId`; write it as `aws ec2 describe-subnets --output json` prints it",
        ),
        (r#"{"Subnets": []}"#, "`Subnets` are there and `RouteTables` are not"),
        (r#"{"LoadBalancers": [], "NextToken": "x"}"#, "a.json is not all: it has a NextToken"),
        (
            r#"{"Attributes": []}"#,
            "a.json: `Attributes` does not say whose it is; add LoadBalancerArn or TargetGroupArn or ListenerArn beside it: \
             aws elbv2 describe-load-balancer-attributes ... | jq '. + {\"LoadBalancerArn\": \"arn:...\"}'",
        ),
        (r#"{"Certificates": []}"#, "add ListenerArn beside it"),
        (r#"{"TargetHealthDescriptions": []}"#, "add TargetGroupArn beside it"),
        (
            r#"{"LoadBalancers": [{"LoadBalancerArn": "arn:1", "LoadBalancerName": "x"}],
                "TagDescriptions": [{"ResourceArn": "arn:1", "Tags": [{"Key": "berth.dev/resource", "Value": "load-balancer/1"}]}]}"#,
            "a.json: LoadBalancers[0]: missing field `DNSName`",
        ),
    ];
    for (text, says) in cases {
        let error = read(&[("a.json", text)]).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn several_texts_are_one_snapshot_and_what_is_there_twice_is_as_it_was_read_last() {
    let (mut full, empty) = (subnet("subnet-1", "vpc-1"), subnet("subnet-1", "vpc-1"));
    full["AvailableIpAddressCount"] = 3.into();
    let first = json!({ "Subnets": [full, subnet("subnet-2", "vpc-1")] }).to_string();
    let second = json!([{ "Subnets": [empty] }, { "NextToken": null, "Vpcs": [] }]).to_string();
    let snapshot = read(&[("a.json", &first), ("b.json", &format!("{second}\n{ROUTES}"))]).unwrap();
    let seen = snapshot.subnets.unwrap();
    let told: Vec<_> = seen.iter().map(|(_, subnet)| (subnet.id.as_str(), subnet.free_addresses)).collect();
    assert_eq!(told, [("subnet-1", 250), ("subnet-2", 250)]);
}

#[test]
fn a_subnet_is_as_public_as_its_route_table_or_else_the_main_one_of_its_vpc() {
    let table = |vpc: &str, with: Value, gateway: &str, state: &str| json!({"VpcId": vpc, "Associations": [with], "Routes": [{"GatewayId": gateway, "State": state}, {"NatGatewayId": "nat-1"}]});
    let subnets = ["own", "dead", "main", "other"].map(|id| subnet(id, if id == "other" { "vpc-2" } else { "vpc-1" }));
    let text = json!({
        "Subnets": subnets,
        "RouteTables": [
            table("vpc-1", json!({"Main": true}), "vgw-1", "active"),
            table("vpc-1", json!({"Main": false, "SubnetId": "own"}), "igw-1", "active"),
            table("vpc-1", json!({"Main": false, "SubnetId": "dead"}), "igw-1", "blackhole"),
            table("vpc-2", json!({"Main": true}), "igw-2", "active"),
        ],
    });
    let snapshot = read(&[("a.json", &text.to_string())]).unwrap();
    let told: Vec<_> = snapshot.subnets.iter().flatten().map(|(_, is)| (is.id.as_str(), is.is_public)).collect();
    assert_eq!(told, [("dead", false), ("main", false), ("other", true), ("own", true)]);
    assert_eq!(snapshot.vpcs(), ["vpc-1", "vpc-2"].into());
}

#[test]
fn zones_and_outposts_and_ranges_that_are_going_are_told_apart() {
    let (mut local, mut outpost, mut going) = (subnet("local", "v"), subnet("outpost", "v"), subnet("going", "v"));
    local["AvailabilityZone"] = "eu-central-1-ham-1a".into();
    outpost["OutpostArn"] = "arn:outpost".into();
    going["Ipv6CidrBlockAssociationSet"] =
        json!([{"Ipv6CidrBlock": "2001:db8::/64", "Ipv6CidrBlockState": {"State": "disassociating"}}]);
    let text = json!({
        "Subnets": [local, outpost, going], "RouteTables": [],
        "AvailabilityZones": [{"ZoneName": "eu-central-1-ham-1a", "ZoneType": "local-zone"}],
    });
    let snapshot = read(&[("a.json", &text.to_string())]).unwrap();
    let told: Vec<_> =
        snapshot.subnets.iter().flatten().map(|(_, is)| (is.zone_type.as_str(), is.ipv6_cidr.is_some())).collect();
    assert_eq!(told, [("availability-zone", false), ("local-zone", false), ("outpost", false)]);
}

#[test]
fn what_is_not_there_is_said_with_what_is_made_of_it() {
    let berths = |resource: &str| json!([{"Key": "berth.dev/resource", "Value": resource}]);
    let balancer = |name: &str| {
        json!({
            "LoadBalancerArn": format!("arn:{name}"), "LoadBalancerName": name, "DNSName": "x", "VpcId": "vpc-1", "Scheme": "internal",
            "IpAddressType": "ipv4", "State": {"Code": "active"}, "AvailabilityZones": [],
        })
    };
    let text = json!({
        "LoadBalancers": [balancer("ours"), balancer("unknown")],
        "TagDescriptions": [{"ResourceArn": "arn:ours", "Tags": berths("load-balancer/1")}],
    });
    let told = read(&[("a.json", &text.to_string())]).unwrap().lacks;
    let says = [
        "no `TagDescriptions` of the load balancers unknown, so they count as somebody else's",
        "no `Subnets`, so they are chosen in the cloud: add `aws ec2 describe-subnets`",
        "no `SecurityGroups`",
        "no `Listeners` of Berth's load balancer ours",
        "no `Attributes` of ours, so it counts as one without any: add `aws elbv2 describe-load-balancer-attributes --load-balancer-arn arn:ours`",
    ];
    assert_eq!(told.len(), says.len(), "{told:#?}");
    for (told, says) in told.iter().zip(says) {
        assert!(told.starts_with(says), "{told}");
    }
}

#[test]
fn load_balancers_of_other_kinds_and_rules_that_are_never_ours_are_passed_over() {
    let text = json!({
        "LoadBalancers": [{"LoadBalancerArn": "arn:alb", "LoadBalancerName": "alb", "Type": "application", "State": {"Code": "new"}}],
        "TargetGroups": [{"TargetGroupArn": "arn:lambda", "TargetType": "lambda"}],
        "Listeners": [{"ListenerArn": "arn:l", "LoadBalancerArn": "arn:alb", "Protocol": "HTTP", "Port": 80}],
        "TagDescriptions": [{"ResourceArn": "arn:alb", "Tags": []}],
        "SecurityGroups": [{"GroupId": "sg-1", "GroupName": "g", "IpPermissions": [
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/8"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
        ]}],
    });
    let snapshot = read(&[("a.json", &text.to_string())]).unwrap();
    assert!(snapshot.load_balancers.is_empty() && snapshot.target_groups.is_empty() && snapshot.listeners.is_empty());
    assert_eq!(snapshot.names.unwrap().into_keys().collect::<Vec<_>>(), ["alb"], "its name is taken");
    assert_eq!(snapshot.groups.unwrap()[0].1.rules.len(), 2);
}
