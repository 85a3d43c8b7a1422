//! Counting up, down, and to the limits.

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn limits(max_connections: usize, max_connections_per_address: usize) -> Arc<Admission> {
    Admission::new(AdmissionLimits { max_connections, max_connections_per_address, connect_rate: 0 })
}

#[test]
fn the_node_has_so_many_places_and_gets_them_back() {
    let admission = limits(2, 0);
    let first = admission.admit(address("10.0.0.1")).expect("a place");
    let _second = admission.admit(address("10.0.0.1")).expect("a place");
    assert_eq!(admission.admit(address("10.0.0.2")).err(), Some(Full::Node));
    drop(first);
    assert_eq!(admission.connections(), 1);
    assert!(admission.admit(address("10.0.0.2")).is_ok());
}

#[test]
fn an_address_has_so_many_and_is_forgotten_at_zero() {
    let admission = limits(0, 1);
    let first = admission.admit(address("10.0.0.1")).expect("a place");
    assert_eq!(admission.admit(address("10.0.0.1")).err(), Some(Full::Address));
    assert_eq!(admission.admit(address("::ffff:10.0.0.1")).err(), Some(Full::Address), "the same, written as IPv6");
    assert_eq!(admission.connections(), 1, "a refusal is not counted");
    let _other = admission.admit(address("10.0.0.2")).expect("another address");
    drop(first);
    assert_eq!(admission.by_address.lock().expect("unpoisoned").len(), 1);
}

#[test]
fn ipv6_is_counted_by_network() {
    let admission = limits(0, 1);
    let _first = admission.admit(address("2001:db8:0:1::1")).expect("a place");
    assert_eq!(admission.admit(address("2001:db8:0:1:ffff::2")).err(), Some(Full::Address));
    assert!(admission.admit(address("2001:db8:0:2::1")).is_ok());
}
