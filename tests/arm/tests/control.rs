//! What is said to the stand-in over HTTP.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use berth_arm_fake::Fake;
use http::{Request, Response};
use serde_json::{Value, json};

const IP: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/publicIPAddresses/a";

fn ask(fake: &Fake, method: &str, path: &str, body: &Value) -> Option<Response<Vec<u8>>> {
    let query = if path.starts_with("/_fake") { "" } else { "?api-version=2024-03-01" };
    let request = Request::builder().method(method).uri(format!("http://fake{path}{query}"));
    fake.handle(&request.body(body.to_string().into_bytes()).unwrap(), Duration::ZERO)
}

fn status(fake: &Fake, method: &str, path: &str, body: &Value) -> u16 {
    ask(fake, method, path, body).map_or(0, |response| response.status().as_u16())
}

fn said(fake: &Fake, path: &str) -> Value {
    serde_json::from_slice(ask(fake, "GET", path, &Value::Null).unwrap().body()).unwrap()
}

fn ip() -> Value {
    let properties = json!({"publicIPAllocationMethod": "Static", "futureField": {"kept": true}});
    json!({"location": "here", "sku": {"name": "Standard"}, "properties": properties})
}

#[test]
fn faults_are_scripted_counted_and_forgotten() {
    let fake = Fake::default();
    let answer = json!({"method": "PUT", "kind": "publicIPAddresses", "after": 1, "times": 2, "do": "answer",
        "status": 429, "code": "TooManyRequests", "retry_after": 7});
    assert_eq!(status(&fake, "POST", "/_fake/faults", &answer), 204);
    let statuses: Vec<u16> = (0..4).map(|_| status(&fake, "PUT", IP, &ip())).collect();
    assert_eq!(statuses, [201, 429, 429, 200]);
    assert_eq!(said(&fake, "/_fake/counts"), json!({"PUT publicIPAddresses": 4}));
    for (how, expected) in [("break", 0), ("loseAnswer", 0), ("stick", 200)] {
        assert_eq!(status(&fake, "POST", "/_fake/faults", &json!({"method": "PUT", "do": how})), 204);
        assert_eq!(status(&fake, "PUT", IP, &ip()), expected, "{how}");
    }
    // What is stuck is in the way of all that follows.
    assert_eq!(status(&fake, "PUT", IP, &ip()), 409);
    assert_eq!(status(&fake, "POST", "/_fake/faults", &json!({"do": "vanish"})), 400);
}

#[test]
fn what_is_not_known_is_kept_and_what_only_azure_writes_is_filled_in() {
    let fake = Fake::default();
    let planted = json!({"id": IP, "document": ip()});
    assert_eq!(status(&fake, "PUT", "/_fake/resources", &planted), 204);
    let document = &said(&fake, "/_fake/resources")[IP];
    assert_eq!(document["properties"]["futureField"], json!({"kept": true}));
    assert!(document["etag"].is_string() && document["properties"]["ipAddress"].is_string());
    assert_eq!(document["properties"]["provisioningState"], "Succeeded");
    assert_eq!(said(&fake, IP), *document);
}

#[test]
fn the_rules_of_security_groups_are_kept() {
    let fake = Fake::default();
    let id = IP.replace("publicIPAddresses", "networkSecurityGroups");
    let rule = |name: &str, priority: u16, more: Value| {
        let mut properties = json!({"priority": priority, "direction": "Inbound", "access": "Allow", "protocol": "Tcp",
            "sourcePortRange": "*", "destinationPortRange": "80", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*"});
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": name, "properties": properties})
    };
    for (rules, code) in [
        (vec![rule("a", 500, json!({})), rule("b", 500, json!({}))], Some("SecurityRuleConflict")),
        (vec![rule("a", 50, json!({}))], Some("SecurityRuleInvalidPriority")),
        (
            vec![rule("a", 500, json!({"destinationAddressPrefixes": ["10.0.0.1"]}))],
            Some("SecurityRuleParameterContainsUnsupportedValue"),
        ),
        (
            vec![rule(
                "a",
                500,
                json!({"sourceAddressPrefix": null, "sourceAddressPrefixes": ["Internet", "10.0.0.1"]}),
            )],
            Some("SecurityRuleInvalidAddressPrefix"),
        ),
        (vec![rule("a", 500, json!({})), rule("b", 501, json!({}))], None),
    ] {
        let group = json!({"location": "here", "properties": {"securityRules": rules}});
        let answer = ask(&fake, "PUT", &id, &group).unwrap();
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["error"]["code"].as_str(), code, "{group}");
    }
}
