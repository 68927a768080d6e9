//! A command line that cannot be right ends the process at once, with what to do about it.

#![allow(clippy::unwrap_used, reason = "a test's fixtures are right or the test is wrong")]

use std::process::Command;

#[test]
fn flags_that_do_not_go_together_end_the_process_at_once_with_what_to_do() {
    for (flags, says) in [
        (
            &["--default-provider=mock"][..],
            "--default-provider mock is not one of --providers; add it there or choose another default",
        ),
        (&["--default-provider=pool", "--default-provider=mock"], "--default-provider mock is not one of --providers"),
        (
            &["--providers=mock", "--class=example.com/lb=pool"],
            "--class example.com/lb=pool: pool is not one of --providers",
        ),
        (&["--class=example.com/lb=cloud"], "`cloud` is no provider; there are pool, mock, aws and azure"),
        (&["--class=berth.dev/pool=pool"], "`berth.dev/pool` is one of Berth's own classes, which are not mapped"),
        (
            &["--heartbeat-key-rotation=5m"],
            "`5m` is no time between two keys, which is 10 minutes or more, such as `7d` or `12h`, or `0` for never",
        ),
        // With the calls to AWS it asks for more, without them it cannot be.
        if cfg!(feature = "aws") {
            (&["--providers=aws"], "--providers=aws needs --aws-cluster-name NAME")
        } else {
            (&["--providers=aws", "--aws-cluster-name=prod"], "this berth-controller was built without AWS")
        },
        (&["--aws-pod-readiness-gates"], "--aws-pod-readiness-gates needs --providers=aws"),
        (&["--default-provider=aws"], "--default-provider aws is not one of --providers"),
        (&["--providers=azure"], "--providers=azure needs --azure-cluster-name NAME"),
        (
            &["--providers=azure", "--azure-cluster-name=prod", "--azure-config=/nowhere/azure.json"],
            "/nowhere/azure.json cannot be read: No such file or directory (os error 2); mount the azure.json of cloud-provider-azure",
        ),
        (
            &["--providers=azure,aws"],
            "--providers has both aws and azure, and a cluster is in one cloud; leave one out",
        ),
        (&["--default-provider=azure"], "[possible values: none, pool, mock, aws]"),
        (&["--aws-internet-facing-namespaces=Shop"], "`Shop` is no name of a namespace"),
        (&["--providers=cloud"], "[possible values: pool, mock, aws, azure]"),
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_berth-controller")).args(flags).env_clear().output().unwrap();
        let told = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.code().is_some_and(|code| code != 0), "{flags:?}: {}", run.status);
        assert!(told.contains(says), "{flags:?}: {told}");
    }
}
