//! The bench itself, with few Services and few runs: that it measures, not how fast anything is.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use berth_bench::arp::{self, Part};
use berth_bench::client::{Family, Kind};
use berth_bench::failover::{self, Cause, Fault};
use berth_bench::row::Row;
use berth_bench::{Measurement, Programs, Subject, measure};
use berth_lab::{BIN_DIR_ENV, Lab, lab_test};

const SERVICES: usize = 20;
const EXISTING: usize = 10;
/// Addresses of the owner that crashes with many.
const MANY: usize = 20;
/// Less than the time after which a standby takes an owner for dead.
const DETECTION_MS: f64 = 150.0;

lab_test! {
    berth_bench::LAB;
    async fn the_bench_measures_the_floor(lab: Lab) -> Result<()> {
        check(&measured(&lab, Subject::Floor, None).await?)
    }
}

lab_test! {
    berth_bench::LAB;
    async fn the_bench_measures_berth(lab: Lab) -> Result<()> {
        check(&measured(&lab, Subject::Berth, None).await?)
    }
}

lab_test! {
    berth_bench::LAB;
    /// By its command, which finds a kubeconfig in the environment.
    async fn the_bench_measures_another_controller(lab: Lab) -> Result<()> {
        let program = folder()?.join("berth-bench");
        let command = format!("test -r \"$KUBECONFIG\" && exec {} null-controller", program.display());
        check(&measured(&lab, Subject::Peer, Some(command)).await?)
    }
}

lab_test! {
    berth_bench::LAB;
    async fn a_controller_that_ends_is_not_measured(lab: Lab) -> Result<()> {
        let failed = measured(&lab, Subject::Peer, Some("echo no such flag; exit 2".to_owned())).await;
        let error = format!("{:#}", failed.err().context("it was measured")?);
        ensure!(error.contains("peer-1 has ended") && error.contains("no such flag"), "{error}");
        Ok(())
    }
}

lab_test! {
    failover::LAB;
    /// What a crash does to addresses is known, so it is known what the bench has to see.
    async fn the_bench_measures_a_failover(lab: Lab) -> Result<()> {
        let what = failover::Measurement {
            faults: vec![Fault::Crash, Fault::Crash1000],
            runs: 1,
            families: vec![Family::Ipv4, Family::Ipv6],
            load: None,
            many: MANY,
            programs: folder()?,
        };
        let mut rows = Vec::new();
        let mut done = |more| {
            rows.extend(more);
            Ok(())
        };
        Box::pin(failover::measure(&lab, &what, &|_| (), &mut done)).await?;
        let (many, few) = rows.split_last().context("rows")?;
        let clients: Vec<_> = few.iter().map(|row| (row.family, row.client)).collect();
        let expected: Vec<_> = what.families.iter().flat_map(|f| Kind::ALL.map(|kind| (*f, kind))).collect();
        assert_eq!(clients, expected);
        for row in few {
            // The owner was gone for at least the time in which its standby found that out, and a connection that it had was lost.
            ensure!(row.fault == Cause::Fault(Fault::Crash) && row.gap_ms.min > DETECTION_MS, "{row:?}");
            ensure!(row.client != Kind::Established || row.resets > 0, "{row:?}");
            assert_eq!((row.runs, row.moves, row.second_claims), (1, 1, 0), "{row:?}");
        }
        ensure!(many.fault == Cause::Fault(Fault::Crash1000) && many.gap_ms.min > DETECTION_MS, "{many:?}");
        assert_eq!((many.moves, many.second_claims), (MANY as u64, 0), "{many:?}");
        Ok(())
    }
}

lab_test! {
    arp::LAB;
    async fn the_bench_measures_how_addresses_are_answered_for(lab: Lab) -> Result<()> {
        let programs = folder()?;
        let what = arp::Measurement { programs: &programs, noise: 500, seconds: 2 };
        let rows = Box::pin(arp::measure(&lab, what, &|_| ())).await?;
        let of: Vec<_> = rows.iter().map(|row| (row.bench, row.family)).collect();
        let expected = [Part::Quiet, Part::Noisy, Part::Fast].map(|part| [(part, Family::Ipv4), (part, Family::Ipv6)]);
        assert_eq!(of, expected.concat());
        for row in &rows {
            ensure!(row.asked > 0 && row.answered == row.asked, "{row:?}");
            ensure!(0.0 < row.p50_us && row.p50_us <= row.p99_us && row.p99_us <= row.max_us, "{row:?}");
            ensure!((row.noise_per_s > 0.0) == (row.bench == Part::Noisy), "{row:?}");
        }
        Ok(())
    }
}

async fn measured(lab: &Lab, subject: Subject, peer: Option<String>) -> Result<Row> {
    let programs = Programs { folder: folder()?, peer };
    let what = Measurement { subject, services: SERVICES, existing: EXISTING };
    Box::pin(measure(lab, &programs, what, &|_| ())).await
}

fn check(row: &Row) -> Result<()> {
    ensure!((row.services, row.existing) == (SERVICES, EXISTING), "{row:?}");
    let ordered = 0.0 < row.p50_ms && row.p50_ms <= row.p99_ms && row.p99_ms <= row.max_ms;
    ensure!(ordered && row.max_ms <= row.total_s * 1000.0 + 1.0, "{row:?}");
    ensure!(row.rss_mb > 1.0 && row.restart_to_first_s >= 0.0, "{row:?}");
    Ok(())
}

/// Where the programs are: where the command that builds them says, or beside this one's folder.
fn folder() -> Result<PathBuf> {
    let myself = std::env::current_exe().context("finding the running program")?;
    let built = myself.parent().and_then(|deps| deps.parent()).map(PathBuf::from);
    std::env::var_os(BIN_DIR_ENV).map(PathBuf::from).or(built).context("no folder of programs")
}
