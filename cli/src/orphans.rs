//! `kubectl berth orphans`: what carries this cluster's marks in a cloud and belongs to no Service, as the controller found it.

use std::collections::BTreeSet;

use berth_api::orphans::{LIST_KEY, Orphan, OrphanList, REMOVE, config_map_name, named};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use crate::observed::Seen;
use crate::report::Unreadable;
use crate::table::{Cell, Style, Table};

/// The providers that make something outside the cluster.
pub const CLOUDS: [&str; 1] = ["aws"];

/// What was found, of all providers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OrphansReport {
    /// They.
    pub orphans: Vec<ProviderOrphan>,
    /// How many more there are than are listed.
    pub more: usize,
    /// Providers of which there is a list.
    pub searched: Vec<&'static str>,
    /// What could not be looked at.
    pub unreadable: Vec<Unreadable>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProviderOrphan {
    /// Whose it is.
    pub provider: &'static str,
    /// What it is.
    #[serde(flatten)]
    pub orphan: Orphan,
}

/// What the lists of providers say.
pub fn report(lists: Vec<(&'static str, Seen<Option<ConfigMap>>)>) -> OrphansReport {
    let mut report = OrphansReport::default();
    for (provider, list) in lists {
        let text = match list {
            Seen::Here(Some(map)) => map.data.and_then(|mut data| data.remove(LIST_KEY)).unwrap_or_default(),
            Seen::Here(None) | Seen::KindMissing => continue,
            Seen::Unreadable(why) => {
                report.unreadable.push(why);
                continue;
            }
        };
        match serde_json::from_str::<OrphanList>(&text) {
            Ok(list) => {
                report.searched.push(provider);
                report.more += list.more;
                report.orphans.extend(list.orphans.into_iter().map(|orphan| ProviderOrphan { provider, orphan }));
            }
            Err(error) => report.unreadable.push(Unreadable {
                resource: format!("the list in the ConfigMap {}", config_map_name(provider)),
                message: error.to_string(),
            }),
        }
    }
    report
}

/// What is to be removed, as the list of a provider is to be annotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Whose list it is.
    pub provider: &'static str,
    /// The version that was seen.
    pub version: Option<String>,
    /// All UIDs that are named then.
    pub uids: BTreeSet<String>,
}

/// A Service that nothing is listed of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing that Service `{0}` left is listed; name it as NAMESPACE/NAME or by its UID, as `kubectl berth orphans -o json` has them"
)]
pub struct NothingOf(String);

/// What is listed of Services that a person names, and what to write for it to be removed.
pub fn removal(
    lists: &[(&'static str, Seen<Option<ConfigMap>>)],
    services: &[String],
) -> Result<(OrphansReport, Vec<Request>), NothingOf> {
    let all = report(lists.to_vec());
    let is = |found: &ProviderOrphan, service: &String| {
        [&found.orphan.service, &found.orphan.service_uid].into_iter().flatten().any(|text| text == service)
    };
    if let Some(service) = services.iter().find(|service| !all.orphans.iter().any(|found| is(found, service))) {
        return Err(NothingOf(service.clone()));
    }
    let chosen = all.orphans.iter().filter(|found| services.iter().any(|service| is(found, service)));
    let chosen: Vec<_> = chosen.cloned().collect();
    let uids = |found: &[ProviderOrphan], provider: &str| -> BTreeSet<String> {
        let theirs = found.iter().filter(|found| found.provider == provider);
        theirs.filter_map(|found| found.orphan.service_uid.clone()).collect()
    };
    let request = |(provider, list): &(&'static str, Seen<Option<ConfigMap>>)| {
        let map = list.here()?.as_ref()?;
        let mut wanted = uids(&chosen, provider);
        if wanted.is_empty() {
            return None;
        }
        // Who was named before stays named while something of it is listed.
        let before = map.metadata.annotations.as_ref().and_then(|all| all.get(REMOVE));
        let listed = uids(&all.orphans, provider);
        wanted.extend(before.map(|text| named(text)).unwrap_or_default().intersection(&listed).cloned());
        Some(Request { provider, version: map.metadata.resource_version.clone(), uids: wanted })
    };
    let requests = lists.iter().filter_map(request).collect();
    Ok((OrphansReport { orphans: chosen, ..OrphansReport::default() }, requests))
}

/// As a table.
pub fn table(report: &OrphansReport, style: Style) -> String {
    if report.orphans.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec!["PROVIDER", "KIND", "SERVICE", "WHY", "ID"]);
    for ProviderOrphan { provider, orphan } in &report.orphans {
        let service = Cell::or_none(orphan.service.as_ref());
        let texts = [&orphan.kind, &orphan.why, &orphan.id].map(|text| Cell::from(text.as_str()));
        let [kind, why, id] = texts;
        table.row(vec![(*provider).into(), kind, service, why, id]);
    }
    table.render(style)
}

/// What is to be told beside it.
pub fn notes(report: &OrphansReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.more > 0 {
        notes.push(format!("and {} more, which are not listed", report.more));
    }
    if report.searched.is_empty() && report.unreadable.is_empty() {
        notes.push(
            "there is no list: the controller writes one where it makes something in a cloud, some minutes after it began to lead"
                .to_owned(),
        );
    } else if report.orphans.is_empty() && report.unreadable.is_empty() {
        notes.push(format!("no orphans ({})", report.searched.join(", ")));
    } else if !report.orphans.is_empty() {
        notes.push("the controller searches once an hour, and removes what is named by --remove alone".to_owned());
    }
    notes.extend(report.unreadable.iter().map(crate::render::unreadable));
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(more: usize) -> Seen<Option<ConfigMap>> {
        let orphans = json!([
            {"id": "arn:1", "kind": "load balancer", "shard": "shop/group/edge", "why": "no Service of shop/group/edge is served"},
            {"id": "arn:2", "kind": "target group", "shard": "shop/service/web", "service": "shop/web", "serviceUid": "1",
             "why": "no Service shop/web is served"},
        ]);
        let text = json!({"orphans": orphans, "more": more}).to_string();
        Seen::Here(Some(serde_json::from_value(json!({"data": {LIST_KEY: text}})).unwrap()))
    }

    #[test]
    fn what_is_listed_is_shown_with_the_service_that_it_was_made_for_and_why() {
        let found = report(vec![("aws", list(0))]);
        let expected = "\
PROVIDER   KIND            SERVICE    WHY                                       ID
aws        load balancer   <none>     no Service of shop/group/edge is served   arn:1
aws        target group    shop/web   no Service shop/web is served             arn:2
";
        assert_eq!(table(&found, Style::Plain), expected);
        assert_eq!(
            notes(&found),
            ["the controller searches once an hour, and removes what is named by --remove alone"]
        );
        let value = serde_json::to_value(&found).unwrap();
        assert_eq!(value["orphans"][1]["serviceUid"], "1");
        assert_eq!((&value["orphans"][0]["provider"], &value["more"]), (&json!("aws"), &json!(0)));
        assert_eq!(notes(&report(vec![("aws", list(7))]))[0], "and 7 more, which are not listed");
    }

    #[test]
    fn who_is_named_is_asked_for_beside_those_who_were_named_before_and_are_listed_still() {
        let annotated = |text: &str| {
            let Seen::Here(Some(mut map)) = list(0) else { panic!("no list") };
            map.metadata.resource_version = Some("7".to_owned());
            map.metadata.annotations = Some([(REMOVE.to_owned(), text.to_owned())].into());
            vec![("aws", Seen::Here(Some(map)))]
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for service in ["shop/web", "1"] {
            let (chosen, requests) = removal(&annotated("gone"), &words(&[service])).unwrap();
            assert_eq!(chosen.orphans.iter().map(|found| &*found.orphan.id).collect::<Vec<_>>(), ["arn:2"]);
            let version = Some("7".to_owned());
            assert_eq!(requests, [Request { provider: "aws", version, uids: ["1".to_owned()].into() }]);
        }
        assert_eq!(removal(&annotated("1"), &words(&["shop/web"])).unwrap().1[0].uids.len(), 1);
        for wrong in ["shop/db", "web", ""] {
            let refused = removal(&annotated(""), &words(&["shop/web", wrong])).unwrap_err();
            assert_eq!(refused, NothingOf(wrong.to_owned()), "all or nothing");
        }
    }

    #[test]
    fn where_there_is_nothing_it_is_said_whether_anybody_searched() {
        let empty: ConfigMap =
            serde_json::from_value(json!({"data": {LIST_KEY: "{\"orphans\": [], \"more\": 0}"}})).unwrap();
        assert_eq!(notes(&report(vec![("aws", Seen::Here(Some(empty)))])), ["no orphans (aws)"]);
        assert!(notes(&report(vec![("aws", Seen::Here(None))]))[0].starts_with("there is no list"));
        let why = Unreadable { resource: "configmaps berth-orphans-aws".to_owned(), message: "no".to_owned() };
        let found = report(vec![("aws", Seen::Unreadable(why))]);
        assert_eq!(notes(&found), ["warning: configmaps berth-orphans-aws could not be read: no"]);
        let wrong: ConfigMap = serde_json::from_value(json!({"data": {}})).unwrap();
        let found = report(vec![("aws", Seen::Here(Some(wrong)))]);
        assert!(notes(&found)[0].starts_with("warning: the list in the ConfigMap berth-orphans-aws could not be read"));
        assert_eq!(table(&found, Style::Plain), "");
    }
}
