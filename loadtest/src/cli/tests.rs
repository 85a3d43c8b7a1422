//! From words to plans.

use std::ffi::OsString;
use std::time::SystemTime;

use super::*;

fn parsed_with(line: &str, variables: &[(&str, &str)]) -> Result<Command, Refusal> {
    let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
    let words = std::iter::once("loadtest").chain(line.split_whitespace()).map(OsString::from);
    parse(words, &variable, SystemTime::UNIX_EPOCH)
}

fn run(line: &str) -> Run {
    match parsed_with(line, &[]) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn every_scenario_has_a_plan_without_options() {
    let crowd = |line: &str| {
        let plan = run(line).plan;
        (plan.rooms, plan.members, plan.publishers, plan.rate, plan.duration.as_secs())
    };
    assert_eq!(crowd("fanout"), (1, 1000, 1, 10.0, 30));
    assert_eq!(crowd("chat"), (100, 20, 20, 1.0, 30));
    assert_eq!(crowd("idle"), (1000, 10, 0, 0.0, 60));
    assert_eq!(crowd("storm"), (50, 20, 20, 1.0, 30));
    assert_eq!(crowd("churn"), (100, 20, 1, 1.0, 30));
    assert_eq!(crowd("soak"), (50, 20, 5, 1.0, 3600));
}
