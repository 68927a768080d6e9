# Everything that an account has, as one JSON object, without what differs from one run to the next but for identities.
import json
import os

import boto3

region = os.environ["AWS_REGION"]
ec2 = boto3.client("ec2", region_name=region)
elb = boto3.client("elbv2", region_name=region)


def pairs(tags):
    return {tag["Key"]: tag.get("Value", "") for tag in tags}


def tags(arn):
    [description] = elb.describe_tags(ResourceArns=[arn])["TagDescriptions"]
    return pairs(description["Tags"])


def every(client, call, key, **given):
    return [item for page in client.get_paginator(call).paginate(**given) for item in page[key]]


def rules(permissions):
    for permission in permissions:
        sources = [r["CidrIp"] for r in permission.get("IpRanges", [])]
        sources += [r["CidrIpv6"] for r in permission.get("Ipv6Ranges", [])]
        sources += [r["PrefixListId"] for r in permission.get("PrefixListIds", [])]
        sources += [names[r["GroupId"]] for r in permission.get("UserIdGroupPairs", [])]
        for source in sources:
            yield "{} {}-{} from {}".format(
                permission["IpProtocol"], permission.get("FromPort"), permission.get("ToPort"), source
            )


def target_group(group):
    arn = group["TargetGroupArn"]
    health = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    return {
        **{key: group.get(key) for key in ("Protocol", "Port", "TargetType", "HealthCheckProtocol", "HealthCheckPort", "HealthCheckPath", "HealthCheckIntervalSeconds")},
        "Attributes": pairs(elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]),
        "Targets": sorted("{}:{}".format(of["Target"]["Id"], of["Target"].get("Port")) for of in health),
        "Tags": tags(arn),
    }


def listener(of):
    arn = of["ListenerArn"]
    others = every(elb, "describe_listener_certificates", "Certificates", ListenerArn=arn)
    return {
        "Protocol": of["Protocol"],
        "TargetGroup": groups[of["DefaultActions"][0]["TargetGroupArn"]],
        "SslPolicy": of.get("SslPolicy"),
        "AlpnPolicy": of.get("AlpnPolicy", []),
        "Certificates": sorted(c["CertificateArn"] for c in others),
        "Attributes": pairs(elb.describe_listener_attributes(ListenerArn=arn)["Attributes"]),
        "Tags": tags(arn),
    }


def load_balancer(of):
    arn = of["LoadBalancerArn"]
    return {
        **{key: of.get(key) for key in ("Type", "Scheme", "IpAddressType")},
        "Subnets": sorted(zone["SubnetId"] for zone in of["AvailabilityZones"]),
        "SecurityGroups": sorted(names[group] for group in of.get("SecurityGroups", [])),
        "Attributes": pairs(elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]),
        "Listeners": {
            str(one["Port"]): listener(one) for one in every(elb, "describe_listeners", "Listeners", LoadBalancerArn=arn)
        },
        "Tags": tags(arn),
    }


security_groups = every(ec2, "describe_security_groups", "SecurityGroups")
names = {group["GroupId"]: group["GroupName"] for group in security_groups}
target_groups = every(elb, "describe_target_groups", "TargetGroups")
groups = {group["TargetGroupArn"]: group["TargetGroupName"] for group in target_groups}
load_balancers = every(elb, "describe_load_balancers", "LoadBalancers")
seen = {
    # A list of names, because moto takes two of one name and AWS does not.
    "LoadBalancerNames": sorted(of["LoadBalancerName"] for of in load_balancers),
    "LoadBalancers": {of["LoadBalancerName"]: load_balancer(of) for of in load_balancers},
    "TargetGroups": {of["TargetGroupName"]: target_group(of) for of in target_groups},
    "SecurityGroups": {
        of["GroupName"]: {"Rules": sorted(rules(of["IpPermissions"])), "Tags": pairs(of.get("Tags", []))}
        for of in security_groups
        if of["GroupName"] != "default"
    },
}
print(json.dumps(seen))
