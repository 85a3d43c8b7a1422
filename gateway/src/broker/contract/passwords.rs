//! `--redis-password` and `--redis-sentinel-password`: any characters, for a user with and without a name, in each topology.

use std::ffi::OsString;
use std::path::Path;

use super::trust::{stays_down, works};
use super::*;
use crate::config::{Action, Settings};

/// What means something in a URL, in a shell, in RESP or in a file.
const ODD: &str = "p@s/s: \"w'o#r%2Fd?&=,\\$\u{e9}\r\n-";

fn options(url: &str, passwords: &[(&str, &str)]) -> RedisOptions {
    let args = ["gateway", "--redis", url].map(OsString::from);
    let passwords = passwords.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match Settings::load(args, passwords, Path::new("/nonexistent")) {
        Ok(Action::Run(settings)) => {
            let url = settings.redis_with_passwords().expect("given");
            RedisOptions::new(url.as_str(), node("node-a"))
        }
        other => panic!("{other:?}"),
    }
}

/// From now on only who knows the password gets in, as `roomcast` or without a name.
fn lock(server: &Server, password: &str) {
    let allow = format!(">{password}");
    let _: String = server.command(&["ACL", "SETUSER", "roomcast", "on", "resetpass", &allow, "~*", "&*", "+@all"]);
    let _: String = server.command(&["CONFIG", "SET", "masterauth", password]);
    let _: String = server.command(&["CONFIG", "SET", "requirepass", password]);
}

#[tokio::test(flavor = "local")]
async fn one_server() {
    let server = Server::start(&[]);
    lock(&server, ODD);
    let host = format!("127.0.0.1:{}", server.port);
    for (at, user) in ["", "roomcast@", "roomcast:old@", ":old@"].iter().enumerate() {
        works(&options(&format!("redis://{user}{host}/{at}"), &[("ROOMCAST_REDIS_PASSWORD", ODD)])).await;
    }
    let url = format!("redis://{host}/5");
    stays_down(&options(&url, &[("ROOMCAST_REDIS_PASSWORD", "other")])).await;
    stays_down(&options(&url, &[("ROOMCAST_REDIS_PASSWORD", "")])).await;
}

#[tokio::test(flavor = "local")]
async fn sentinels_with_another_password_than_the_servers() {
    let group = Watched::start_ready();
    let of_sentinels = format!("sentinels {ODD}");
    for sentinel in &group.sentinels {
        let _: String = sentinel.command(&["SENTINEL", "SET", "main", "auth-pass", "plain"]);
        let allow = format!(">{of_sentinels}");
        let _: String = sentinel.command(&[
            "ACL",
            "SETUSER",
            "watcher",
            "on",
            &allow,
            "+sentinel|get-master-addr-by-name",
            "+@connection",
        ]);
        let _: String = sentinel.command(&["ACL", "SETUSER", "default", "resetpass", &allow]);
    }
    group.servers.iter().for_each(|server| lock(server, "plain"));
    let url = group.options("node-a").url;
    let good = [("ROOMCAST_REDIS_PASSWORD", "plain"), ("ROOMCAST_REDIS_SENTINEL_PASSWORD", &of_sentinels)];
    works(&RedisOptions { prefix: "one".into(), ..options(&url, &good) }).await;
    let named = format!("{}?sentinel_user=watcher", url.replace("://", "://roomcast@"));
    works(&RedisOptions { prefix: "two".into(), ..options(&named, &good) }).await;
    // The password of the servers is not shown to the sentinels.
    stays_down(&options(&url, &good[..1])).await;
}

#[tokio::test(flavor = "local")]
async fn a_cluster() {
    let group = Sharded::start_lone();
    group.servers.iter().for_each(|server| lock(server, ODD));
    let url = group.options("node-a").url;
    for (prefix, user) in [("one", ""), ("two", "roomcast@")] {
        let url = url.replace("://", &format!("://{user}"));
        works(&RedisOptions { prefix: prefix.into(), ..options(&url, &[("ROOMCAST_REDIS_PASSWORD", ODD)]) }).await;
    }
    stays_down(&options(&url, &[])).await;
}
