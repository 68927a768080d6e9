use std::time::Duration as StdDuration;

use berth_api::MacAddr;
use berth_machine::Status;

use super::*;

const NOW: &str = "2026-11-21T08:00:10Z";
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const FOREIGN: MacAddr = MacAddr([6, 0, 0, 0, 0, 9]);

fn report(epoch: u64, cause: Reason) -> Report {
    Report {
        status: Status {
            state: State::Answering,
            epoch,
            since: StdDuration::ZERO,
            mac: OURS,
            interface: "eth0".to_owned(),
            cause,
            owner: None,
            foreign: None,
        },
        since: "2026-11-21T08:00:09Z".parse().unwrap(),
        former: None,
        released: false,
    }
}

fn seen(layer2: Option<(&str, u64)>) -> Seen {
    Seen {
        name: "192.0.2.10".to_owned(),
        uid: None,
        resource_version: Some("7".to_owned()),
        layer2: layer2.map(|(owner, epoch)| Layer2Status {
            owner: owner.to_owned(),
            epoch,
            since: MicroTime("2026-11-20T00:00:00Z".parse().unwrap()),
            mac: OURS,
            interface: "eth0".to_owned(),
            caretaker: None,
        }),
        ready: None,
    }
}

fn decide(report: &Report, seen: &Seen) -> Option<Value> {
    wanted("b", report, seen, NOW.parse().unwrap())
}

/// What is seen once `status` was written.
fn after(seen: &Seen, status: &Value) -> Seen {
    Seen {
        layer2: status.get("layer2").map(|v| serde_json::from_value(v.clone()).unwrap()),
        ready: Some(serde_json::from_value(status["conditions"][0].clone()).unwrap()),
        ..seen.clone()
    }
}

#[test]
fn a_newer_ownership_is_never_written_over() {
    let cases = [
        (None, true, "nobody has written yet"),
        (Some(("a", 1)), true, "an older one of another node"),
        (Some(("a", 2)), false, "an equal one of a node that goes first by name"),
        (Some(("c", 2)), true, "an equal one of a node that goes behind by name"),
        (Some(("a", 3)), false, "a newer one of another node"),
        (Some(("b", 1)), true, "an older one of this node"),
        (Some(("b", 3)), false, "a newer one of this node, by a later start of its process"),
    ];
    for (layer2, writes, what) in cases {
        let status = decide(&report(2, Reason::Answering), &seen(layer2));
        assert_eq!(status.is_some(), writes, "{what}");
        if let Some(status) = status {
            assert_eq!((&status["layer2"]["owner"], &status["layer2"]["epoch"]), (&json!("b"), &json!(2)), "{what}");
        }
    }
}

#[test]
fn what_was_written_is_not_written_again() {
    let mut conflict = report(2, Reason::Answering);
    conflict.status.foreign = Some(FOREIGN);
    let mut unused = report(2, Reason::AddressConflict);
    unused.status.state = State::Conflicted;
    unused.status.foreign = Some(FOREIGN);
    let reports =
        [report(2, Reason::Answering), report(2, Reason::TookOver), report(2, Reason::OwnerChanged), conflict, unused];
    for report in reports {
        let before = seen(Some(("a", 1)));
        let status = decide(&report, &before).unwrap();
        assert_eq!(decide(&report, &after(&before, &status)), None, "{report:?}");
    }
}

#[test]
fn a_new_start_of_the_process_leaves_an_ownership_that_goes_on_as_it_was() {
    let before = seen(Some(("a", 1)));
    let took_over = decide(&report(2, Reason::TookOver), &before).unwrap();
    let mut restarted = report(2, Reason::Answering);
    restarted.since = NOW.parse().unwrap();
    assert_eq!(decide(&restarted, &after(&before, &took_over)), None);

    // On another interface it is not as it was, and it began now.
    restarted.status.interface = "eth1".to_owned();
    let moved = decide(&restarted, &after(&before, &took_over)).unwrap();
    assert_eq!(moved["layer2"]["since"], "2026-11-21T08:00:10.000000Z");
}

#[test]
fn that_a_node_does_not_serve_is_taken_back_when_it_does() {
    let before = seen(Some(("a", 1)));
    let unproven = decide(&report(2, Reason::NotServing), &before).unwrap();
    let proven = decide(&report(2, Reason::Answering), &after(&before, &unproven)).unwrap();
    assert_eq!(proven["conditions"][0]["reason"], "Answering");
}

#[test]
fn the_condition_says_why_and_what_to_do() {
    let mut took_over = report(2, Reason::TookOver);
    took_over.former = Some("a".to_owned());
    let mut conflict = report(2, Reason::Answering);
    conflict.status.foreign = Some(FOREIGN);
    let mut unused = conflict.clone();
    unused.status.state = State::Conflicted;
    unused.status.cause = Reason::AddressConflict;
    let cases = [
        (report(2, Reason::Answering), "True", "Answering", "b answers on eth0 with 02:00:00:00:00:02"),
        (
            took_over,
            "True",
            "TookOver",
            "b answers on eth0 with 02:00:00:00:00:02; it took over from a, which no longer answers",
        ),
        (
            report(2, Reason::NotServing),
            "True",
            "NotServing",
            "b answers on eth0 with 02:00:00:00:00:02, although nothing showed that the node forwards the traffic of the Service: no \
             connection to it could be made from the node, or its health check there says that it has no endpoint; look at kube-proxy on b",
        ),
        (
            conflict,
            "True",
            "AddressConflict",
            "b answers on eth0 with 02:00:00:00:00:02, but the machine with 06:00:00:00:00:09, which is none of our nodes, \
             has the address too; take it from that machine or from the pool",
        ),
        (
            unused,
            "False",
            "AddressConflict",
            "b does not answer on eth0, because the machine with 06:00:00:00:00:09, which is none of our nodes, \
             has the address too; take it from that machine or from the pool",
        ),
    ];
    for (report, status, reason, message) in cases {
        let written = decide(&report, &seen(None)).unwrap();
        let condition = &written["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"], &condition["message"]),
            (&json!(status), &json!(reason), &json!(message))
        );
        assert_eq!(written.get("layer2").is_some(), status == "True", "{written}");
    }
}

#[test]
fn a_conflict_before_first_use_leaves_alone_what_another_node_says_of_itself() {
    let mut conflict = report(2, Reason::AddressConflict);
    conflict.status.state = State::Conflicted;
    conflict.status.foreign = Some(FOREIGN);
    assert_eq!(decide(&conflict, &seen(Some(("a", 1)))).unwrap()["layer2"]["owner"], "a");
    assert_eq!(decide(&conflict, &seen(Some(("b", 1)))).unwrap().get("layer2"), None);
}

#[test]
fn an_event_is_made_of_what_is_new_only() {
    let mut took_over = report(2, Reason::TookOver);
    took_over.former = Some("a".to_owned());
    let mut conflict = report(2, Reason::Answering);
    conflict.status.foreign = Some(FOREIGN);
    let before = seen(Some(("a", 1)));
    let answering = after(&before, &decide(&report(2, Reason::Answering), &before).unwrap());
    let in_conflict = after(&before, &decide(&conflict, &before).unwrap());
    let cases = [
        (
            &report(2, Reason::Answering),
            &seen(None),
            Some(("Answering", "b answers for 192.0.2.10 on eth0 with 02:00:00:00:00:02")),
        ),
        (
            &took_over,
            &before,
            Some((
                "TookOver",
                "b took over 192.0.2.10 from a, which no longer answers, and answers on eth0 with 02:00:00:00:00:02",
            )),
        ),
        (&report(2, Reason::Answering), &answering, None),
        (
            &conflict,
            &answering,
            Some((
                "AddressConflict",
                "192.0.2.10 is also in use by 06:00:00:00:00:09, which is none of our nodes; seen by b on eth0",
            )),
        ),
        (&conflict, &in_conflict, None),
        (
            &report(2, Reason::Answering),
            &in_conflict,
            Some(("Answering", "b answers for 192.0.2.10 on eth0 with 02:00:00:00:00:02")),
        ),
    ];
    for (report, before, expected) in cases {
        let happening = Happening::new("b", IpAddr::from([192, 0, 2, 10]), report, before);
        let said = happening.as_ref().map(Happening::said);
        assert_eq!(said, expected, "{report:?} after {before:?}");
    }
}

#[test]
fn a_node_that_answers_no_longer_says_so_unless_another_one_does() {
    let answering = report(2, Reason::Answering);
    let released = Report { released: true, ..report(2, Reason::Answering) };
    let cases = [
        (None, false, "nothing was written"),
        (Some(("b", 2)), true, "what this node wrote is no longer so"),
        (Some(("b", 3)), false, "a later start of this node's process answers"),
        (Some(("c", 2)), false, "another node with the same number"),
        (Some(("c", 1)), false, "another node, of before"),
        (Some(("a", 3)), false, "another node, since then"),
    ];
    for (layer2, writes, what) in cases {
        let mut before = seen(layer2);
        if layer2 == Some(("b", 2)) {
            before = after(&before, &decide(&answering, &before).unwrap());
        }
        let status = decide(&released, &before);
        assert_eq!(status.is_some(), writes, "{what}");
        let Some(status) = status else { continue };
        assert_eq!(status["layer2"], json!(before.layer2), "the number stays");
        let ready = &status["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Withdrawn")));
        assert_eq!(ready["message"], "b answers no longer, because it has no part in the address any more");
        let now = after(&before, &status);
        assert_eq!(decide(&released, &now), None, "once");
        // The node is named again, with the number it has: it answers again, and says so.
        assert_eq!(decide(&answering, &now).unwrap()["conditions"][0]["status"], "True");
    }
}

#[test]
fn a_release_is_looked_at_after_the_announcement_is_out_of_sight_and_then_forgotten() {
    let address = IpAddr::from([192, 0, 2, 10]);
    let (board, at) = (Board::default(), "2026-11-21T08:00:09Z".parse().unwrap());
    let taken = || board.take_changed(&BTreeSet::new()).map(|(_, report, _)| report.released);
    board.saw(address, seen(Some(("b", 2))));
    board.report("b", address, report(2, Reason::Answering).status, at);
    assert_eq!(taken(), Some(false));
    board.vanished(address);
    board.release(address);
    assert_eq!(taken(), Some(true));
    board.settled(address);
    board.again(address);
    assert_eq!(taken(), None);
    // Nothing is left of it.
    board.report("b", address, report(3, Reason::Answering).status, at);
    assert_eq!(taken(), None, "not before its Announcement is seen again");
    board.saw(address, seen(Some(("b", 2))));
    assert_eq!(taken(), Some(false));
    // One that was never answered for is nothing to speak of.
    board.release(IpAddr::from([192, 0, 2, 11]));
    assert_eq!(taken(), None);
}

/// This node answers in place of `owner`.
fn caring(owner: &str, epoch: u64) -> Report {
    let mut report = report(epoch, Reason::CaredFor);
    report.status.state = State::Caring;
    report.status.owner = Some(berth_machine::NodeName::new(owner).unwrap());
    report
}

#[test]
fn a_caretaker_is_named_beside_the_owner_whose_ownership_stays_as_it_is() {
    for (owner, epoch, written, why) in [
        (Some(("a", 2)), 2, true, "what it cares for"),
        (Some(("a", 3)), 2, false, "a newer ownership"),
        (Some(("c", 2)), 2, false, "another node's"),
        (None, 2, false, "the owner did not write yet"),
    ] {
        let before = seen(owner);
        let status = decide(&caring("a", epoch), &before);
        assert_eq!(status.is_some(), written, "{why}");
        let Some(status) = status else { continue };
        let after = after(&before, &status);
        let layer2 = after.layer2.clone().unwrap();
        assert_eq!(layer2.caretaker.as_ref().map(|caretaker| caretaker.node.as_str()), Some("b"));
        assert_eq!(Layer2Status { caretaker: None, ..layer2 }, before.layer2.unwrap());
        let ready = after.ready.clone().unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "CaredFor"));
        assert_eq!(decide(&caring("a", epoch), &after), None, "written once");
    }
}

#[test]
fn an_owner_that_is_back_takes_its_caretaker_out_and_leaves_the_rest() {
    let mut before = seen(Some(("b", 2)));
    let layer2 = before.layer2.clone().unwrap();
    let since = MicroTime(NOW.parse().unwrap());
    before.layer2 = Some(Layer2Status { caretaker: Some(Caretaker { node: "c".to_owned(), since }), ..layer2.clone() });
    let status = decide(&report(2, Reason::Answering), &before).unwrap();
    assert_eq!(after(&before, &status).layer2, Some(layer2), "since when it answers as well");
}
