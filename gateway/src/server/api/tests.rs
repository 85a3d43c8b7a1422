//! Holds `openapi.json` to the table of routes, and to the codes of problems.

use std::collections::BTreeSet;

use serde_json::Value;

use super::problem::Code;
use super::routes::{BASE, ENDPOINTS, Needs};
use super::{DESCRIPTION, is_below};

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).expect("JSON")
}

/// Every operation, as (method, path, itself).
fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("a path").iter().filter(|(key, _)| *key != "parameters");
        methods.map(|(method, operation)| (method.to_uppercase(), path.clone(), operation.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["servers"][0]["url"], BASE);
    let described: BTreeSet<(String, String, String)> = operations(&description)
        .into_iter()
        .map(|(method, path, operation)| (method, path, operation["operationId"].as_str().expect("an id").to_owned()))
        .collect();
    let served: BTreeSet<(String, String, String)> = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.method.to_string(), endpoint.path.to_owned(), endpoint.label.to_owned()))
        .collect();
    assert_eq!(described, served);
    assert_eq!(served.len(), ENDPOINTS.len(), "none twice");
}

#[test]
fn who_may_call_is_described() {
    let description = description();
    for (method, path, operation) in operations(&description) {
        let endpoint = ENDPOINTS.iter().find(|endpoint| *endpoint.method.as_str() == *method && endpoint.path == path);
        let first = &operation["security"][0];
        match endpoint.expect("it is served").needs {
            Needs::Nothing => assert_eq!(*first, serde_json::json!({}), "{method} {path}"),
            Needs::Token => assert!(first.get("userToken").is_some(), "{method} {path}"),
            Needs::Key(scope) => {
                assert_eq!(first["apiKey"][0], scope.as_str(), "{method} {path}");
                for status in ["401", "403", "429"] {
                    assert!(operation["responses"].get(status).is_some(), "{method} {path}: {status}");
                }
            }
        }
    }
}

#[test]
fn every_code_is_described() {
    let description = description();
    let described: BTreeSet<&str> = description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|code| code.as_str().expect("text"))
        .collect();
    assert_eq!(described, Code::ALL.iter().map(|code| code.as_str()).collect());
}

/// What an example shows is what a problem looks like.
#[test]
fn examples_of_problems_are_real() {
    let description = description();
    for (name, response) in description["components"]["responses"].as_object().expect("responses") {
        let example = &response["content"]["application/problem+json"]["example"];
        let code = Code::ALL.iter().find(|code| example["code"] == code.as_str());
        let code = code.unwrap_or_else(|| panic!("{name}: {example}"));
        let detail = example["detail"].as_str().expect("text").to_owned();
        let real = serde_json::to_value(super::problem::Problem::new(*code, detail).json()).expect("JSON");
        assert_eq!(*example, real, "{name}");
    }
}

#[test]
fn references_lead_somewhere() {
    fn visit(node: &Value, whole: &Value) {
        match node {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("of this document");
                    assert!(whole.pointer(pointer).is_some(), "{reference}");
                }
                object.values().for_each(|value| visit(value, whole));
            }
            Value::Array(list) => list.iter().for_each(|value| visit(value, whole)),
            _ => {}
        }
    }
    let description = description();
    visit(&description, &description);
}

#[test]
fn only_its_own_paths_are_below() {
    for path in ["/api", "/api/", "/api/v1/rooms", "/api/x"] {
        assert!(is_below(path), "{path}");
    }
    for path in ["/", "/apis", "/ws/api", "/API/v1"] {
        assert!(!is_below(path), "{path}");
    }
}
