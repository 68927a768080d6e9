//! A small API server that has Services: versions, finalizers, deletion, and a status that is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use berth_api::orphans::OrphanList;
use berth_api::service::ServiceKey;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::service_fn;

use crate::with_aws::pods::Pods;

/// What is in the API server, and what it was asked.
pub(crate) struct Api {
    /// The class of Services that are made.
    class: &'static str,
    services: BTreeMap<ServiceKey, Value>,
    version: u64,
    /// Writes that were carried out, such as `finalizer on shop/web`.
    pub(crate) log: Vec<String>,
    /// What writes of finalizers are answered, if they are not carried out.
    pub(crate) refuses: Option<u16>,
    /// Somebody else is quicker at the next writes of finalizers.
    pub(crate) overtaken: u32,
    /// Reasons of events.
    pub(crate) events: Vec<String>,
    watchers: Vec<mpsc::UnboundedSender<ServiceKey>>,
    pub(crate) pods: Pods,
    /// Lists of orphans that were written.
    pub(crate) lists: Vec<OrphanList>,
    /// What writes of them are answered, if they are not carried out.
    pub(crate) refuses_lists: Option<u16>,
}

pub(crate) type Shared = Arc<Mutex<Api>>;

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

impl Api {
    /// An empty one, in which Services are made with this class.
    pub(crate) fn of(class: &'static str) -> Shared {
        let (services, version, log, refuses, overtaken, events, watchers) = Default::default();
        let (pods, lists, refuses_lists) = Default::default();
        Arc::new(Mutex::new(Self {
            class,
            services,
            version,
            log,
            refuses,
            overtaken,
            events,
            watchers,
            pods,
            lists,
            refuses_lists,
        }))
    }

    pub(crate) fn watch(&mut self) -> mpsc::UnboundedReceiver<ServiceKey> {
        let (to, from) = mpsc::unbounded_channel();
        self.watchers.push(to);
        from
    }

    fn changed(&mut self, key: &ServiceKey) {
        self.version += 1;
        let version = self.version;
        if let Some(service) = self.services.get_mut(key) {
            service["metadata"]["resourceVersion"] = version.to_string().into();
            let is_deleted = !service["metadata"]["deletionTimestamp"].is_null();
            if is_deleted && service["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                self.services.remove(key);
                self.log.push(format!("gone {key}"));
            }
        }
        self.watchers.retain(|watcher| watcher.send(key.clone()).is_ok());
    }

    pub(crate) fn keys(&self) -> BTreeSet<ServiceKey> {
        self.services.keys().cloned().collect()
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).map(|service| serde_json::from_value(service.clone()).unwrap())
    }

    /// Makes a Service, or changes it: `spec` is merged into what is there, annotations take the place of those there.
    pub(crate) fn apply(&mut self, name: &str, annotations: Value, spec: &Value) {
        let key = key(name);
        let (number, class) = (self.version, self.class);
        let letters = name.bytes().fold(0_u64, |sum, byte| (sum * 257 + u64::from(byte)) % (1 << 48));
        let service = self.services.entry(key.clone()).or_insert_with(|| {
            json!({
                "metadata": {
                    "namespace": "shop", "name": name, "uid": format!("{number:08x}-1111-4222-8333-{letters:012x}"),
                    "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", number % 60),
                    "finalizers": ["example.com/other"],
                },
                "spec": {
                    "type": "LoadBalancer", "loadBalancerClass": class, "ipFamilies": ["IPv4"],
                    "ports": [{"name": "http", "port": 80, "nodePort": 30_080, "targetPort": 8080, "protocol": "TCP"}],
                },
            })
        });
        // Of others, who are done with it as soon as it is deleted; so it tells that nobody else's is overwritten.
        service["metadata"]["annotations"] = annotations;
        for (field, value) in spec.as_object().into_iter().flatten() {
            service["spec"][field] = value.clone();
        }
        self.changed(&key);
    }

    /// Deletes a Service: it stays as long as it has finalizers.
    pub(crate) fn delete(&mut self, name: &str) {
        let key = key(name);
        if let Some(service) = self.services.get_mut(&key) {
            service["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
            if let Some(finalizers) = service["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != "example.com/other");
            }
        }
        self.changed(&key);
    }

    /// Somebody takes all finalizers off, and it is gone.
    pub(crate) fn remove_by_force(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.changed(&key(name));
    }

    pub(crate) fn finalizers(&self, name: &str) -> Option<Vec<String>> {
        let service = self.services.get(&key(name))?;
        serde_json::from_value(service["metadata"]["finalizers"].clone()).unwrap()
    }

    /// Where the Service is published.
    pub(crate) fn hostname(&self, name: &str) -> Option<String> {
        let service = self.services.get(&key(name))?;
        service.pointer("/status/loadBalancer/ingress/0/hostname")?.as_str().map(str::to_owned)
    }

    /// The addresses that are published for the Service.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = self.services.get(&key(name)).map(|service| service["status"]["loadBalancer"]["ingress"].clone());
        let all = ingress.as_ref().and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect()
    }

    /// A condition, as `True Reason message`.
    pub(crate) fn says(&self, name: &str, kind: &str) -> String {
        let conditions = self.services.get(&key(name)).map(|service| service["status"]["conditions"].clone());
        let of = |condition: &&Value| condition["type"] == format!("berth.dev/{kind}");
        let conditions = conditions.unwrap_or_default();
        let condition = conditions.as_array().into_iter().flatten().find(of);
        let word = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        condition
            .map_or_else(String::new, |c| format!("{} {} {}", word(c, "status"), word(c, "reason"), word(c, "message")))
    }

    /// Answers what is asked of the ConfigMap with the list of orphans.
    fn list(&mut self, body: &Value) -> (StatusCode, Value) {
        if let Some(code) = self.refuses_lists {
            return (StatusCode::from_u16(code).unwrap(), Value::Null);
        }
        let version = |lists: usize| lists.to_string();
        if !body.is_null() {
            let written_on = body["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            if written_on != version(self.lists.len()) {
                return (StatusCode::CONFLICT, Value::Null);
            }
            self.lists.push(serde_json::from_str(body["data"]["orphans.json"].as_str().unwrap()).unwrap());
        }
        let Some(list) = self.lists.last() else { return (StatusCode::NOT_FOUND, Value::Null) };
        let data = json!({"orphans.json": serde_json::to_string_pretty(list).unwrap()});
        let metadata = json!({"name": "berth-orphans-aws", "resourceVersion": version(self.lists.len())});
        (StatusCode::OK, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
    }

    fn answer(&mut self, path: &str, body: &Value) -> (StatusCode, Value) {
        if path.contains("/events") {
            self.events.push(body["reason"].as_str().unwrap_or_default().to_owned());
            return (StatusCode::CREATED, body.clone());
        }
        if path.starts_with("/api/v1/namespaces/berth-system/configmaps") {
            return self.list(body);
        }
        if let Some(pod) =
            path.strip_prefix("/api/v1/namespaces/shop/pods/").and_then(|path| path.strip_suffix("/status"))
        {
            return self.pods.apply_status(pod, body);
        }
        let Some(path) = path.strip_prefix("/api/v1/namespaces/shop/services/") else { panic!("{path} is asked for") };
        let (name, status) = path.split_once('/').unwrap_or((path, ""));
        let key = key(name);
        if status.is_empty() && std::mem::take(&mut self.overtaken) > 0 {
            self.changed(&key);
        }
        let Some(service) = self.services.get_mut(&key) else { return (StatusCode::NOT_FOUND, Value::Null) };
        if body.is_null() {
            return (StatusCode::OK, service.clone());
        }
        let meta = &body["metadata"];
        if meta["resourceVersion"] != service["metadata"]["resourceVersion"]
            || meta["uid"] != service["metadata"]["uid"]
        {
            return (StatusCode::CONFLICT, Value::Null);
        }
        if status == "status" {
            if service["status"] != body["status"] {
                service["status"] = body["status"].clone();
                self.log.push(format!("status {key}"));
                self.changed(&key);
            }
        } else {
            if let Some(code) = self.refuses {
                return (StatusCode::from_u16(code).unwrap(), Value::Null);
            }
            let has = |all: &Value| all.as_array().is_some_and(|all| all.contains(&"berth.dev/load-balancer".into()));
            let (before, after) = (&service["metadata"]["finalizers"], &meta["finalizers"]);
            assert_ne!(has(before), has(after), "a finalizer is written that is there already");
            let is_deleted = !service["metadata"]["deletionTimestamp"].is_null();
            assert!(!(is_deleted && has(after)), "no finalizer is put on what is being deleted");
            let how = if has(after) { "on" } else { "off" };
            service["metadata"]["finalizers"] = after.clone();
            self.log.push(format!("finalizer {how} {key}"));
            self.changed(&key);
        }
        let mut answer = self.services.get(&key).cloned().unwrap_or_else(|| json!({ "metadata": meta }));
        answer["apiVersion"] = "v1".into();
        answer["kind"] = "Service".into();
        (StatusCode::OK, answer)
    }
}

/// A client of it.
pub(crate) fn client(api: &Shared) -> Client {
    let shared = api.clone();
    let service = service_fn(move |request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = shared.lock().unwrap().answer(parts.uri.path(), &body);
            let answer = if answer.is_null() {
                let reason = match status.as_u16() {
                    404 => "NotFound",
                    403 => "Forbidden",
                    _ => "Conflict",
                };
                json!({"kind": "Status", "status": "Failure", "code": status.as_u16(), "message": "no", "reason": reason})
            } else {
                answer
            };
            let response = Response::builder().status(status).body(Body::from(serde_json::to_vec(&answer)?))?;
            Ok::<_, tower::BoxError>(response)
        }
    });
    Client::new(service, "default")
}
