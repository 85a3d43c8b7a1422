//! Random histories: no false alarms, faults found by name, and the same from the logs.

use proptest::prelude::*;

use super::super::check::check;
use super::super::merge;
use super::world::{Fault, World};
use crate::audit::Finding;

fn history(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u8, u32, u8)>> {
    prop::collection::vec(any::<(u8, u32, u8)>(), length)
}

fn named(fault: Fault) -> Finding {
    match fault {
        Fault::Drop => Finding::Lost,
        Fault::Twice | Fault::StoredTwice => Finding::Duplicated,
        Fault::Swap | Fault::OtherOrder => Finding::Reordered,
        Fault::WrongRoom => Finding::WrongRoom,
        Fault::Corrupt => Finding::Corrupted,
        Fault::SilentBreak => Finding::SilentBreak,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_right_is_no_finding(actions in history(0..150), processes in 1u32..4, echo: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::new(processes, echo, Some(folder.path()));
        for (what, who, much) in actions {
            world.act(what, who, much);
        }
        world.settle();
        // Without echo, acks may tell of a new term before anybody is in it.
        prop_assert!(!echo || world.caught_up());
        let reports = world.reports();
        let merged = merge(&reports);
        prop_assert!(merged.findings.is_empty(), "{:#?}", merged);
        prop_assert_eq!(merged.absent_members, 0);
        let checked = check(&world.logs).expect("a whole log");
        prop_assert!(checked.findings.is_empty(), "{:#?}", checked);
        if processes == 1 {
            prop_assert_eq!(checked.rooms, reports[0].rooms.clone());
        }
        prop_assert_eq!(checked.acked, merged.acked);
        prop_assert_eq!(checked.told_missing, merged.told_missing);
        prop_assert_eq!(checked.checked, merged.checked);
        prop_assert_eq!(checked.recoveries, merged.recoveries);
    }

    #[test]
    fn a_fault_is_found_by_its_name(
        before in history(0..60),
        after in history(0..40),
        processes in 1u32..4,
        echo: bool,
        fault in prop::sample::select(vec![
            Fault::Drop, Fault::Twice, Fault::Swap, Fault::WrongRoom, Fault::Corrupt, Fault::OtherOrder,
            Fault::StoredTwice, Fault::SilentBreak,
        ]),
    ) {
        // Without echo a new term may begin with an own message: what is missing before it is just lost. And processes
        // that each lack their own cannot compare.
        let echo = echo || matches!(fault, Fault::SilentBreak | Fault::OtherOrder);
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::new(processes, echo, Some(folder.path()));
        world.patient = !echo;
        world.settle();
        // Processes can only compare what both of them got from the beginning of a block.
        for (what, who, much) in before.into_iter().filter(|_| fault != Fault::OtherOrder) {
            world.act(what, who, much);
        }
        // So that the room has a term.
        world.act(0, 0, 3);
        world.settle();
        world.fault = Some(fault);
        for (what, who, much) in after {
            world.act(what, who, much);
        }
        world.settle();
        prop_assume!(world.faulted);
        let merged = merge(&world.reports());
        let checked = check(&world.logs).expect("a whole log");
        for report in [&merged, &checked] {
            prop_assert!(report.findings.contains_key(&named(fault)), "{fault:?}: {:#?}", report);
            prop_assert!(report.examples.iter().any(|example| example.finding == named(fault)));
        }
        if processes == 1 {
            prop_assert_eq!(&merged.findings, &checked.findings);
        }
    }
}
