//! From words to plans, and from bad words to good ones.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use roomcast_protocol::Mode;

use super::*;
use crate::plan::{Churn, Share, Sizes, Storm, Token};

/// 2026, before every start that a test gives unless it is to be late.
const NOW_S: u64 = 1_780_000_000;

fn parsed_with(line: &str, variables: &[(&str, &str)]) -> Result<Command, Refusal> {
    let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
    let words = std::iter::once("loadtest").chain(line.split_whitespace()).map(OsString::from);
    parse(words, &variable, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S))
}

fn run_with(line: &str, variables: &[(&str, &str)]) -> Run {
    match parsed_with(line, variables) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn plan(line: &str) -> Plan {
    run_with(line, &[]).plan
}

/// What is said about the line, which must be refused as bad usage.
fn refused(line: &str) -> String {
    let refusal = parsed_with(line, &[]).expect_err(line);
    assert_eq!(refusal.exit_code(), 2, "{line}");
    refusal.to_string()
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn every_scenario_has_a_plan_without_options() {
    let crowd = |line: &str| {
        let plan = plan(line);
        assert_eq!(plan.scenario, line);
        (plan.rooms, plan.members, plan.publishers, plan.rate, plan.duration.as_secs())
    };
    assert_eq!(crowd("fanout"), (1, 1000, 1, 10.0, 30));
    assert_eq!(crowd("chat"), (100, 20, 20, 1.0, 30));
    assert_eq!(crowd("idle"), (1000, 10, 0, 0.0, 60));
    assert_eq!(crowd("storm"), (50, 20, 20, 1.0, 30));
    assert_eq!(crowd("churn"), (100, 20, 1, 1.0, 30));
    assert_eq!(crowd("soak"), (50, 20, 5, 1.0, 3600));
    let (ten, waves) = (Duration::from_secs(10), Duration::from_mins(10));
    assert_eq!(plan("storm").storm, Some(Storm { share: 0.5, first: ten, every: None }));
    assert_eq!(plan("soak").storm, Some(Storm { share: 0.1, first: waves, every: Some(waves) }));
    assert_eq!(plan("soak --dropped 0%").storm, None);
    assert_eq!(plan("churn").churn, Some(Churn { rate: 50.0, away: Duration::from_secs(1) }));
    assert_eq!(plan("soak").churn.map(|churn| churn.rate), Some(5.0));
    assert_eq!((plan("chat").storm, plan("chat").churn), (None, None));
}

#[test]
fn a_plan_without_a_target_is_for_the_gateways_own_port() {
    let run = run_with("chat", &[]);
    assert_eq!(run.plan.targets[0].url, "ws://127.0.0.1:8080");
    assert!(!run.embedded);
    let run = run_with("fanout --self", &[]);
    assert!(run.embedded && run.plan.targets.is_empty());
}

#[test]
fn options_reach_the_plan() {
    let plan = plan(
        "chat --target ws://127.0.0.1:1/a --target 127.0.0.1:2,127.0.0.1:3 --source 127.0.0.2-127.0.0.4 --source ::1 \
         --scrape 127.0.0.1:8081 --rooms 7 --members 3 --publishers 2 --rate 0.5 --size 128:70,1k:30 --no-echo --mode ephemeral \
         --prefix eph.x --duration 2m --settle 0s --connect-rate 50 --ramp 5s --workers 3 --max-lag 9ms --run cafe \
         --assert lost==0 --assert delivery.p99<50ms --log a.log",
    );
    let ports: Vec<u16> = plan.targets.iter().map(|target| target.port).collect();
    assert_eq!((ports, plan.sources.len(), plan.targets[0].base.as_str()), (vec![1, 2, 3], 4, "/a"));
    assert_eq!(plan.scrape, ["http://127.0.0.1:8081/metrics"]);
    assert_eq!((plan.rooms, plan.members, plan.publishers), (7, 3, 2));
    assert_eq!((plan.sizes, plan.echo, plan.mode), (Sizes(vec![(128, 70), (1024, 30)]), false, Mode::Ephemeral));
    assert_eq!((plan.ramp, plan.workers, plan.run), (Some(Duration::from_secs(5)), 3, 0xcafe));
    assert_eq!((plan.max_lag, plan.settle), (Duration::from_millis(9), Duration::ZERO));
    assert_eq!(plan.thresholds.len(), 2);
    assert_eq!(plan.share, Share { index: 0, of: 1 });
}

#[test]
fn a_bad_value_is_refused_with_words_that_lead_on() {
    for (line, words) in [
        ("chat --members 0", "--members must be at least 1"),
        ("chat --rooms 0", "must be at least 1"),
        ("chat --publishers 21", "--publishers 21 are more than --members 20"),
        ("chat --publishers 0", "needs --publishers of at least 1"),
        ("chat --publishers many", "expected a number of members, or all"),
        ("chat --size 7", "to 16777216 bytes"),
        ("chat --rate=-1", "expected a number per second"),
        ("chat --rate NaN", "expected a number per second"),
        ("chat --rate inf", "expected a number per second"),
        ("chat --connect-rate 0", "at least 0.001"),
        ("chat --rooms 4000000000 --members 2", "10,000,000"),
        ("chat --rooms 1000000 --members 20", "10,000,000"),
        ("chat --prefix a/b", "<prefix>-<run>-<number> must be"),
        ("chat --mode solid", "durable or ephemeral"),
        ("chat --duration 30", "with its unit"),
        ("chat --duration 0s", "more than 0"),
        ("chat --self --target h:1", "cannot be used with"),
        ("chat --self --processes 2 --run 1 --start-at 2030-01-01T00:00:00Z", "--self is for one process"),
        ("chat --process 1", "the last is 0"),
        ("chat --processes 0", "count from 0"),
        ("chat --processes 2", "the same --run and --start-at"),
        ("chat --start-at 2026-01-01T00:00:00Z", "s ago"),
        ("chat --start-at soon", "such as 2030-01-31T12:00:00Z"),
        ("chat --workers 0", "at least one thread"),
        ("chat --source 127.0.0.9-127.0.0.2", "from the lower to the higher"),
        ("chat --source 10.0.0.0-10.255.255.255", "at most 4096"),
        ("chat --source host", "expected addresses"),
        ("chat --target ftp://h", "unknown scheme"),
        ("chat --ca /no/such.pem", "--ca /no/such.pem: "),
        ("chat --json /no/such/a.json", "there is no directory /no/such"),
        ("chat --log /", "this is a directory"),
        ("chat --scrape https://h", "expected http://host:port/metrics"),
        ("chat --token a --jwt-secret b", "cannot be used with"),
        ("chat --token-file /no/such", "--token-file /no/such: "),
        ("chat --jwt-issuer x", "need --jwt-secret"),
        ("chat --jwt-secret s --jwt-claims [1]", "no JSON object"),
        ("chat --jwt-secret s --jwt-claims {", "is not JSON"),
        ("chat --backoff 20s", "longer than --backoff-max"),
        ("chat --dropped 5%", "unexpected argument"),
        ("idle --rate 1", "unexpected argument"),
        ("idle --connections 15", "must be a multiple of --members 10"),
        ("storm --dropped 101%", "from 0% to 100%"),
        ("storm --dropped 0.5", "such as 50%"),
        ("storm --duration 5s", "--first 10s is not within --duration 5s"),
        ("churn --publishers all", "must be less than --members"),
        ("churn --leaves 5000", "5000 members away at once, but only 1900"),
        ("churn --leaves 0", "at least 0.001"),
        ("merge", "required"),
        ("merge a.json --html /no/such/a.html", "there is no directory"),
        ("check", "required"),
        ("", "Usage:"),
        ("dance", "unrecognized subcommand"),
    ] {
        let said = refused(line);
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn a_name_nobody_knows_is_a_cluster_out_of_reach() {
    let refusal = parsed_with("chat --target no-such-host.invalid:1", &[]).expect_err("unknown");
    assert_eq!(refusal.exit_code(), 3);
    assert!(refusal.to_string().contains("no-such-host.invalid"), "{refusal}");
}

#[test]
fn help_teaches_each_scenario_within_a_hundred_columns() {
    for scenario in scenario::ALL {
        let help = parsed_with(&format!("{} --help", scenario.name), &[]).expect_err("help").to_string();
        assert!(help.contains("By default") && help.contains(&format!("\n  loadtest {} --", scenario.name)), "{help}");
        assert!(help.contains("Look at") && help.lines().all(|line| line.chars().count() <= 100), "{help}");
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains("[env: LOADTEST_PROCESS, JOB_COMPLETION_INDEX]"), "{help}");
    }
}

#[test]
fn help_is_no_failure() {
    for line in ["--help", "-h", "--version", "chat --help", "merge --help"] {
        assert_eq!(parsed_with(line, &[]).expect_err(line).exit_code(), 0);
    }
}

#[test]
fn processes_of_a_run_agree_on_everything_that_they_share() {
    let line = "chat --processes 3 --run job-4711 --start-at 2030-01-01T00:00:00Z --connect-rate 100 --process";
    let plans: Vec<Plan> = (0..3).map(|index| plan(&format!("{line} {index}"))).collect();
    for (index, plan) in plans.iter().enumerate() {
        assert_eq!(plan.share, Share { index: index as u32, of: 3 });
        assert_eq!((plan.run, plan.start_at), (plans[0].run, plans[0].start_at));
        assert_eq!(plan.ramp, Some(Duration::from_secs(20 + 10)), "2000 clients at 100/s, and a margin");
    }
}

#[test]
fn a_job_gives_what_it_knows_by_variables() {
    let job = [
        ("LOADTEST_TARGET", "ws://127.0.0.1:9,127.0.0.1:10"),
        ("JOB_COMPLETION_INDEX", "1"),
        ("LOADTEST_PROCESSES", "2"),
        ("LOADTEST_RUN", "0000cafe"),
        ("LOADTEST_START_AT", "1900000000"),
        ("LOADTEST_TOKEN", "geheim"),
        ("LOADTEST_JWT_SECRET", ""),
    ];
    let run = run_with("chat", &job);
    assert_eq!((run.plan.targets.len(), run.plan.share, run.plan.run), (2, Share { index: 1, of: 2 }, 0xcafe));
    assert!(matches!(&run.plan.token, Token::Fixed(token) if &**token == "geheim"));
    assert!(!format!("{run:?}").contains("geheim"));
    assert!(run.plan.command.contains("LOADTEST_TOKEN=*** "), "{}", run.plan.command);
    let run = run_with("chat --process=0 --target 127.0.0.1:7 --jwt-secret s", &job);
    assert_eq!((run.plan.share.index, run.plan.targets[0].port, run.plan.targets.len()), (0, 7, 1));
    assert!(matches!(run.plan.token, Token::Minted(_)), "what is typed wins");
    assert!(run_with("fanout --self --processes 1 --process 0", &job).embedded);
    assert!(matches!(parsed_with("merge a.json", &job), Ok(Command::Merge(_))));
}

#[test]
fn the_command_in_the_report_can_be_copied_and_has_no_secrets() {
    let line = "chat --token=geheim --assert lost<1 --rate 2";
    assert_eq!(plan(line).command, "loadtest chat --token=*** --assert 'lost<1' --rate 2");
    assert_eq!(plan("chat --jwt-secret geheim --rate 2").command, "loadtest chat --jwt-secret *** --rate 2");
    let failed = refused("chat --token geheim --jwt-secret geheim");
    assert!(!failed.contains("geheim"), "{failed}");
}

#[test]
fn merge_and_check_take_files() {
    match parsed_with("merge a.json b.json --html out.html --assert lost==0 --partial", &[]) {
        Ok(Command::Merge(merge)) => {
            assert_eq!((merge.files.len(), merge.partial, merge.thresholds.len()), (2, true, 1));
            assert_eq!(merge.output.html, Some("out.html".into()));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(parsed_with("check a.log b.log", &[]), Ok(Command::Check(check)) if check.logs.len() == 2));
}
