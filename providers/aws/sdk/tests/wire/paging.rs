//! Lists of several pages.

use std::collections::BTreeSet;

use berth_aws::cloud::{By, Cloud as _, GroupFilter};
use berth_aws::pace::Rates;
use berth_aws_sdk::Sdk;

use crate::scene::{World, config};

/// More than one page of moto's has.
const MANY: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_read() {
    let world = World::new();
    let config = config(&world.moto.endpoint()).await;
    let (raw, sdk) = (aws_sdk_elasticloadbalancingv2::Client::new(&config), Sdk::new(&config, &Rates::default()));
    let subnets = sdk.describe_subnets(&world.vpc).await.unwrap();
    assert_eq!(subnets.len(), 4);
    assert_eq!(subnets.iter().filter(|subnet| subnet.is_public).count(), 2);
    assert_eq!(sdk.describe_vpc_ranges(&world.vpc).await.unwrap(), ["10.0.0.0/16"]);
    for number in 0..MANY {
        let new = raw.create_load_balancer().name(format!("lb-{number}")).r#type("network".into());
        new.subnets(&subnets[0].id).send().await.unwrap();
    }
    let found: BTreeSet<_> =
        sdk.describe_load_balancers(By::All).await.unwrap().into_iter().map(|is| is.name).collect();
    assert_eq!(found.len(), MANY);
    let named = sdk.describe_load_balancers(By::Name("lb-7")).await.unwrap();
    assert_eq!(named.len(), 1);
    let missing = sdk.describe_load_balancers(By::Name("no-such")).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let none = sdk.describe_security_groups(&world.vpc, GroupFilter::Ids(vec!["sg-0123".to_owned()])).await.unwrap();
    assert_eq!(none, []);
    let ids: Vec<_> = world.nodes.iter().map(|node| node.provider_id.rsplit('/').next().unwrap().to_owned()).collect();
    let instances = sdk.describe_instances(&[&ids[..], &["i-0123".to_owned()]].concat()).await.unwrap();
    assert_eq!(instances.len(), 2);
    let interface = &instances[0].interfaces[0];
    assert!(interface.is_primary && interface.security_groups.len() == 1, "{interface:?}");
    let by_address = sdk.describe_interfaces(&world.vpc, &interface.addresses).await.unwrap();
    assert_eq!(by_address.iter().map(|found| &found.id).collect::<Vec<_>>(), [&interface.id]);
}
