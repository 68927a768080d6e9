# The network of a cluster: two zones with a public and an internal subnet each, and instances with a security group for nodes.
import json
import os

import boto3

region = os.environ["AWS_REGION"]
count = int(os.environ["INSTANCES"])
ec2 = boto3.client("ec2", region_name=region)
vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
group = ec2.create_security_group(VpcId=vpc, GroupName="nodes", Description="of nodes")["GroupId"]
ec2.create_tags(Resources=[group], Tags=[{"Key": "kubernetes.io/cluster/bench", "Value": "owned"}])
zones = [region + "a", region + "b"]
internal = []
for number, zone in enumerate(zones):
    for role, third in (("elb", number), ("internal-elb", 10 + number)):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.{}.0/24".format(third), AvailabilityZone=zone)
        subnet = made["Subnet"]["SubnetId"]
        ec2.create_tags(Resources=[subnet], Tags=[{"Key": "kubernetes.io/role/" + role, "Value": "1"}])
        if role == "elb":
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        else:
            internal.append(subnet)
instances = []
for number in range(count):
    zone = number % len(zones)
    run = ec2.run_instances(
        ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=internal[zone], SecurityGroupIds=[group]
    )
    instances.append("aws:///{}/{}".format(zones[zone], run["Instances"][0]["InstanceId"]))
acm = boto3.client("acm", region_name=region)
names = ["a.example.com", "b.example.com"]
certificates = [acm.request_certificate(DomainName=name)["CertificateArn"] for name in names]
print(json.dumps({"vpc": vpc, "instances": instances, "certificates": certificates}))
