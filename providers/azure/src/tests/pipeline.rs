//! The calls over HTTP, against the stand-in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_arm_fake::{Action, Fault};
use berth_provider::{Class, Failure, Provider as _};
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::lifecycle::answer;
use super::scene::{Anybody, GROUP, PUBLIC, Scene, Wire, cloud, key, service, settings};
use crate::Azure;
use crate::arm::{Arm as _, Called, Condition, Id, Wait, collection};
use crate::config::Secret;
use crate::document::etag;
use crate::pipeline::token::{Credential, Entra, TokenError, Tokens};
use crate::pipeline::{Pipeline, Transport};

fn client(wire: &Wire) -> Pipeline<Wire, Anybody> {
    Pipeline::new(wire.clone(), Anybody, "http://fake")
}

fn ip(name: &str) -> (Id, Value) {
    let properties = json!({"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4"});
    let body = json!({"location": "westeurope", "sku": {"name": "Standard"}, "properties": properties});
    (Id::new(format!("{GROUP}/publicIPAddresses/{name}")), body)
}

async fn put(client: &Pipeline<Wire, Anybody>, name: &str) -> Called<Value> {
    let (id, body) = ip(name);
    client.put(&id, &body, &Condition::New, Wait::Done).await
}

fn said(failed: Called<Value>) -> (Class, String) {
    let failure = Failure::from(failed.unwrap_err());
    (failure.class, failure.message)
}

#[tokio::test(start_paused = true)]
async fn a_write_is_waited_for_and_its_failure_keeps_its_code() {
    let wire = Wire::new(cloud());
    let client = client(&wire);
    wire.fake.takes(Duration::from_secs(7));
    let began = Instant::now();
    let document = put(&client, "a").await.unwrap();
    assert_eq!(document["properties"]["provisioningState"], "Succeeded");
    assert!(began.elapsed() >= Duration::from_secs(7));
    // By `Azure-AsyncOperation`.
    let later = |code: &str| Action::FailLater { code: code.to_owned(), message: "it went wrong".to_owned() };
    wire.fake.fault(Fault::next("PUT", "publicIPAddresses", later("ReferencedPublicIPPrefixIsFull")));
    let (class, message) = said(put(&client, "b").await);
    assert_eq!(class, Class::Permission);
    assert!(message.contains("publicIPAddresses/write: ReferencedPublicIPPrefixIsFull: it went wrong"), "{message}");
    // By `Location`.
    wire.fake.fault(Fault::next("DELETE", "publicIPAddresses", later("PublicIPAddressCannotBeDeleted")));
    let error = client.delete(&ip("a").0, None, Wait::Done).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.class().0), ("PublicIPAddressCannotBeDeleted", Class::Conflict));
    client.delete(&ip("a").0, None, Wait::Done).await.unwrap();
    assert_eq!(client.get(&ip("a").0).await.unwrap(), None);
    client.delete(&ip("a").0, None, Wait::Done).await.unwrap();
    // One that is stuck is given up.
    wire.fake.fault(Fault::next("PUT", "publicIPAddresses", Action::Stick));
    let (class, message) = said(put(&client, "c").await);
    assert_eq!(class, Class::Transient);
    assert!(message.contains("not over after 10 minutes"), "{message}");
    assert_eq!(said(put(&client, "c").await).0, Class::Conflict);
}

#[tokio::test(start_paused = true)]
async fn not_to_be_told_how_it_goes_is_no_failure() {
    let wire = Wire::new(cloud());
    let client = client(&wire);
    wire.fake.takes(Duration::from_secs(5));
    for action in [Action::Break, answer(503, "ServiceUnavailable"), answer(429, "TooManyRequests")] {
        wire.fake.fault(Fault::next("GET", "operations", action));
    }
    put(&client, "a").await.unwrap();
}

/// Tokens that are counted.
#[derive(Default)]
struct Counted {
    forgotten: AtomicUsize,
}

impl Tokens for Counted {
    async fn token<T: Transport>(&self, _transport: &T) -> Result<String, TokenError> {
        Ok("counted".to_owned())
    }

    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_while_an_operation_goes_on_is_got_anew_and_says_nothing_of_it() {
    let wire = Wire::new(cloud());
    let tokens = Arc::new(Counted::default());
    let client = Pipeline::new(wire.clone(), Arc::clone(&tokens), "http://fake");
    wire.fake.takes(Duration::from_secs(5));
    let (id, body) = ip("a");
    let ends = || wire.fake.fault(Fault::next("GET", "operations", answer(401, "ExpiredAuthenticationToken")));
    // By `Azure-AsyncOperation`, and by `Location` alone.
    ends();
    client.put(&id, &body, &Condition::New, Wait::Done).await.unwrap();
    assert_eq!(tokens.forgotten.load(Ordering::Relaxed), 1);
    ends();
    client.delete(&id, None, Wait::Done).await.unwrap();
    assert_eq!(tokens.forgotten.load(Ordering::Relaxed), 2);
    assert_eq!(client.get(&id).await.unwrap(), None);
    // What is the operation's own is told as before.
    client.put(&id, &body, &Condition::New, Wait::Done).await.unwrap();
    wire.fake.fault(Fault::next("GET", "operations", answer(400, "PublicIPAddressCannotBeDeleted")));
    let error = client.delete(&id, None, Wait::Done).await.unwrap_err();
    assert_eq!((error.status, error.class().0), (200, Class::Conflict));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_changed_meanwhile_is_not_overwritten() {
    let wire = Wire::new(cloud());
    let client = client(&wire);
    let (id, body) = ip("a");
    let document = put(&client, "a").await.unwrap();
    let (class, message) = said(put(&client, "a").await);
    assert_eq!(class, Class::Conflict);
    assert!(message.contains("PreconditionFailed"), "{message}");
    let seen = Condition::Is(etag(&document).unwrap().to_owned());
    client.put(&id, &body, &seen, Wait::Done).await.unwrap();
    assert_eq!(said(client.put(&id, &body, &seen, Wait::Done).await).0, Class::Conflict);
    // Nor is it deleted.
    let error = client.delete(&id, etag(&document), Wait::Done).await.unwrap_err();
    assert_eq!(error.code, "PreconditionFailed");
    let document = client.get(&id).await.unwrap().unwrap();
    client.delete(&id, etag(&document), Wait::Done).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_fewer_calls_makes_none_of_that_kind() {
    let wire = Wire::new(cloud());
    let client = client(&wire);
    let throttled = Action::Answer {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: "later".to_owned(),
        retry_after: Some(17),
    };
    wire.fake.fault(Fault::next("PUT", "publicIPAddresses", throttled));
    let failure = Failure::from(put(&client, "a").await.unwrap_err());
    assert_eq!((failure.class, failure.retry_after), (Class::Throttled, Some(Duration::from_secs(17))));
    wire.fake.reset_counts();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let failure = Failure::from(put(&client, "b").await.unwrap_err());
    assert_eq!((failure.class, failure.retry_after), (Class::Throttled, Some(Duration::from_secs(10))));
    // Reading is counted by itself.
    assert_eq!(client.get(&ip("b").0).await.unwrap(), None);
    assert_eq!(wire.fake.counts().keys().collect::<Vec<_>>(), ["GET publicIPAddresses"]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    put(&client, "b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_pages_are_read() {
    let wire = Wire::new(cloud());
    let client = client(&wire);
    for number in 0..7 {
        put(&client, &format!("ip{number}")).await.unwrap();
    }
    wire.fake.page(3);
    wire.fake.reset_counts();
    let all = client.list(&collection(&settings(), "rg", "publicIPAddresses")).await.unwrap();
    assert_eq!((all.len(), wire.fake.counts()["GET publicIPAddresses"]), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_got_kept_and_renewed() {
    let file = std::env::temp_dir().join(format!("berth-azure-token-{}", std::process::id()));
    std::fs::write(&file, "first").unwrap();
    let (tenant, client) = ("t".to_owned(), "c".to_owned());
    let workload = Credential::WorkloadIdentity { tenant: tenant.clone(), client: client.clone(), file: file.clone() };
    let secret = |text: &str| Credential::Secret {
        tenant: tenant.clone(),
        client: client.clone(),
        secret: Secret(text.to_owned()),
    };
    for credential in [
        workload.clone(),
        Credential::ManagedIdentity { client: None },
        Credential::ManagedIdentity { client: Some("u".to_owned()) },
        secret("hush"),
    ] {
        let wire = Wire::new(cloud());
        wire.fake.wants_token(Some(Duration::from_hours(1)));
        let tokens = Entra::new(credential.clone(), "http://fake", "http://fake").metadata_at("http://fake");
        let arm = Pipeline::new(wire.clone(), tokens, "http://fake");
        let asked = |wire: &Wire| {
            wire.fake.counts().iter().filter(|(what, _)| what.ends_with("tokens")).map(|(_, n)| n).sum::<u64>()
        };
        for (wait, expected) in [(0, 1), (10, 1), (50, 2), (54, 2), (70, 3)] {
            tokio::time::sleep(Duration::from_mins(wait)).await;
            arm.get(&ip("a").0).await.unwrap();
            assert_eq!(asked(&wire), expected, "{credential:?} after {wait}");
        }
        // One that is not taken is not shown again.
        let before = asked(&wire);
        wire.fake.fault(Fault::next("GET", "publicIPAddresses", answer(401, "ExpiredAuthenticationToken")));
        assert_eq!(Failure::from(arm.get(&ip("a").0).await.unwrap_err()).class, Class::Permission);
        arm.get(&ip("a").0).await.unwrap();
        assert_eq!(asked(&wire), before + 1, "{credential:?}");
    }
    let refused = |credential| async {
        let wire = Wire::new(cloud());
        let arm = Pipeline::new(wire.clone(), Entra::new(credential, "http://fake", "http://fake"), "http://fake");
        Failure::from(arm.get(&ip("a").0).await.unwrap_err())
    };
    let failure = refused(secret("wrong")).await;
    assert_eq!(failure.class, Class::Permission);
    assert!(failure.message.contains("AADSTS7000215"), "{failure}");
    // The file is read each time.
    std::fs::remove_file(&file).unwrap();
    let failure = refused(workload).await;
    assert!(failure.message.contains("azure.workload.identity/use"), "{failure}");
}

/// Carries requests to the stand-in, and reads the assertions in them as Entra ID does.
struct Entrance {
    wire: Wire,
    key: Vec<u8>,
    thumbprint: String,
    seen: std::sync::Mutex<BTreeSet<String>>,
}

impl Transport for Entrance {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, String> {
        if request.uri().path().ends_with("/token") {
            let read = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
            let parsed = |text: &str| serde_json::from_slice::<Value>(&read(text)).unwrap();
            let form = String::from_utf8(request.body().clone()).unwrap();
            let assertion = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion=")).unwrap();
            let (said, signature) = assertion.rsplit_once('.').unwrap();
            let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key);
            key.verify(said.as_bytes(), &read(signature)).unwrap();
            let (header, claims) = said.split_once('.').unwrap();
            assert_eq!(parsed(header), json!({"alg": "RS256", "typ": "JWT", "x5t": self.thumbprint}));
            let claims = parsed(claims);
            assert_eq!((&claims["iss"], &claims["sub"]), (&json!("c"), &json!("c")));
            assert_eq!(claims["aud"], "http://fake/t/oauth2/v2.0/token");
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let (from, until) = (claims["nbf"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
            assert!(from < now && now < until && until - from < 3600, "{claims}");
            assert!(self.seen.lock().unwrap().insert(claims["jti"].as_str().unwrap().to_owned()), "used before");
        }
        self.wire.send(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_a_certificate_signs_with_its_key_and_a_renewed_one_is_read() {
    let folder = std::env::temp_dir().join(format!("berth-azure-certificate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("tls.pem");
    let credential = Credential::Certificate { tenant: "t".to_owned(), client: "c".to_owned(), file: file.clone() };
    let missing = credential.check().unwrap_err();
    assert!(matches!(missing, TokenError::CertificateFile { .. }), "{missing}");
    let tokens = Arc::new(Entra::new(credential.clone(), "http://fake", "http://fake"));
    for _ in 0..2 {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
        credential.check().unwrap();
        let wire = Wire::new(cloud());
        wire.fake.wants_token(Some(Duration::from_hours(1)));
        let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.der());
        let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint.as_ref());
        let (key, seen) = (rcgen::PublicKeyData::der_bytes(&key).to_vec(), std::sync::Mutex::default());
        let entrance = Arc::new(Entrance { wire, key, thumbprint, seen });
        let arm = Pipeline::new(entrance.clone(), tokens.clone(), "http://fake");
        for _ in 0..3 {
            tokens.forget();
            arm.get(&ip("a").0).await.unwrap();
        }
        assert_eq!(entrance.seen.lock().unwrap().len(), 3);
        tokens.forget();
    }
    std::fs::write(&file, "no certificate").unwrap();
    let arm = Pipeline::new(Wire::new(cloud()), tokens, "http://fake");
    let failure = Failure::from(arm.get(&ip("a").0).await.unwrap_err());
    assert_eq!(failure.class, Class::Permission);
    assert!(failure.message.contains("there is no certificate in it; write certificate and key as PEM"), "{failure}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_link_to_elsewhere_gets_no_token() {
    let wire = Wire::new(cloud());
    let arm = Pipeline::new(wire.clone(), Anybody, "http://fak");
    let error = arm.get(&Id::new("e/x")).await.unwrap_err();
    assert!(error.message.contains("gets no token"), "{error}");
    assert!(wire.fake.counts().is_empty());
}

#[tokio::test]
async fn the_life_of_a_service_over_a_socket() {
    let fake = cloud();
    fake.wants_token(Some(Duration::from_hours(1)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(berth_arm_fake::serve(listener, Arc::clone(&fake)));
    let secret = Secret("hush".to_owned());
    let credential = Credential::Secret { tenant: "t".to_owned(), client: "c".to_owned(), secret };
    let tokens = Entra::new(credential, &url, &url);
    let wire = crate::pipeline::Wire::new().unwrap();
    let provider = Azure::new(Pipeline::new(wire, tokens, &url), settings());
    let shard = super::scene::shard();
    let mut scene = Scene::with(settings(), Arc::clone(&fake));
    scene.apply(service("web", &[PUBLIC], json!({})));
    fake.fault(Fault::next("PUT", "loadBalancers", Action::Break));
    fake.fault(Fault::next("PUT", "networkSecurityGroups", answer(429, "TooManyRequests")));
    let mut failures = 0;
    for leaves in [false, true] {
        if leaves {
            scene.delete("web");
        }
        let mut steps = usize::MAX;
        for _ in 0..60 {
            let wanted = scene.wanted();
            let mut observed = provider.observe(&shard, &wanted).await.unwrap();
            let plan = provider.plan(&wanted, &observed);
            steps = plan.steps.len();
            let carried = berth_provider::carry_out(&provider, &shard, &plan, &mut observed, || true).await;
            failures += carried.failures.len();
            let met = plan.outcomes.values().all(|outcome| outcome.met);
            if let Some(intent) = scene.present.get_mut(&key("web")) {
                intent.published = plan.outcomes[&key("web")].ingress.clone();
            }
            if steps == 0 && met {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(steps, 0);
    }
    assert!(failures >= 2, "{failures}");
    assert_eq!(super::conformance::ours(&fake), Vec::<String>::new());
    server.abort();
}
