//! Who calls: API keys, how fast each may call, and how often an address may be wrong. Holds what else all workers share.
//!
//! One [`Gate`] for all workers of a node. Asked once per API request; never on the path of messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use subtle::ConstantTimeEq as _;

use super::problem::{Code, Problem};
use super::turns::Turns;
use crate::config::{ApiKey, Scope, Settings, hash};
use crate::server::admission::{Rate, subscriber};
use crate::server::handshake::authorization;

/// Wrong keys or tokens that one address may send in a row, and the time after which one of them is forgotten.
const MOST_FAILURES: u32 = 20;
const FORGIVEN: Duration = Duration::from_secs(5);
/// Addresses remembered. Full: the one that has been quiet for longest goes, one without a valid key first.
const MOST_ADDRESSES: usize = 4096;

/// What all workers know of those who call.
pub struct Gate {
    keys: Vec<(ApiKey, Option<Rate>)>,
    pub(super) video: Turns,
    attempts: Mutex<HashMap<IpAddr, Attempts, foldhash::fast::RandomState>>,
}

/// What is remembered of an address.
#[derive(Clone, Copy)]
struct Attempts {
    /// When all its failures will be forgotten.
    clean_at: Instant,
    seen: Instant,
    /// The key that last came from there: it goes on working however often others fail behind the same address.
    known: Option<usize>,
}

impl Gate {
    /// As the settings have it.
    pub fn new(settings: &Settings) -> Arc<Self> {
        let now = Instant::now();
        let keys = settings
            .http_api
            .api_keys
            .iter()
            .map(|key| (key.clone(), Rate::new(settings.http_api.api_rate, now)))
            .collect();
        Arc::new(Self { keys, video: Turns::new(now), attempts: Mutex::default() })
    }

    /// The key of a request, if it may do this, now.
    ///
    /// # Errors
    /// 401, 403 or 429.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        scope: Scope,
        from: IpAddr,
        now: Instant,
    ) -> Result<&ApiKey, Problem> {
        if self.keys.is_empty() {
            return Err(Problem::new(Code::ApiDisabled, "no API key is configured: see the setting api-keys"));
        }
        let key = authorization(headers)
            .ok_or_else(|| Problem::new(Code::Unauthorized, "expected one header Authorization: Bearer <API key>"))?;
        let from = subscriber(from);
        let Some(at) = self.find(key) else {
            return Err(self.failed(from, now, "this API key is not known"));
        };
        self.known(from, at, now)?;
        let (key, rate) = &self.keys[at];
        if !rate.as_ref().is_none_or(|rate| rate.take(now)) {
            return Err(Problem::slow_down("this key is used faster than the allowed rate", 1));
        }
        if !key.may(scope) {
            return Err(Problem::new(Code::Forbidden, format!("this key lacks the scope {}", scope.as_str())));
        }
        Ok(key)
    }

    /// The place of a key. All keys are compared, each as a whole: how long it takes tells nothing.
    fn find(&self, key: &str) -> Option<usize> {
        let digest = hash(key);
        let mut found = None;
        for (at, (known, _)) in self.keys.iter().enumerate() {
            if bool::from(known.digest().ct_eq(&digest)) {
                found = Some(at);
            }
        }
        found
    }

    /// Counts a wrong key, and gives the answer to it.
    fn failed(&self, from: IpAddr, now: Instant, detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = entry(&attempts, from, now);
        if let Some(problem) = known.too_many(now) {
            return problem;
        }
        known.clean_at = known.clean_at.max(now) + FORGIVEN;
        remember(&mut attempts, from, known);
        Problem::new(Code::Unauthorized, detail)
    }

    fn known(&self, from: IpAddr, at: usize, now: Instant) -> Result<(), Problem> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = entry(&attempts, from, now);
        if known.known != Some(at)
            && let Some(problem) = known.too_many(now)
        {
            return Err(problem);
        }
        known.known = Some(at);
        remember(&mut attempts, from, known);
        Ok(())
    }
}

impl Attempts {
    /// The answer to an address with too many failures.
    fn too_many(&self, now: Instant) -> Option<Problem> {
        let owed = self.clean_at.saturating_duration_since(now);
        let over = owed.checked_sub(FORGIVEN * (MOST_FAILURES - 1))?;
        (!over.is_zero())
            .then(|| Problem::slow_down("too many wrong keys or tokens came from this address", over.as_secs() + 1))
    }
}

type Table = HashMap<IpAddr, Attempts, foldhash::fast::RandomState>;

fn entry(table: &Table, from: IpAddr, now: Instant) -> Attempts {
    let fresh = Attempts { clean_at: now, seen: now, known: None };
    table.get(&from).map_or(fresh, |known| Attempts { seen: now, ..*known })
}

fn remember(table: &mut Table, from: IpAddr, attempts: Attempts) {
    if table.len() >= MOST_ADDRESSES && !table.contains_key(&from) {
        let quietest = table.iter().min_by_key(|(_, known)| (known.known.is_some(), known.seen));
        if let Some(address) = quietest.map(|(address, _)| *address) {
            table.remove(&address);
        }
    }
    table.insert(from, attempts);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::LazyLock;

    use hyper::header::AUTHORIZATION;

    use super::*;
    use crate::config::HttpApi;

    /// Stands still, however slow the machine is.
    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn key(name: &str, scopes: &str, key: &str) -> String {
        let digest = hash(key).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        format!("{name}:{scopes}:{digest}")
    }

    fn gate(rate: u32) -> Arc<Gate> {
        let keys = [key("reader", "read", "one"), key("writer", "publish+read", "two")];
        let api_keys = keys.iter().map(|key| key.parse().expect("valid")).collect();
        let defaults = Settings::default();
        let http_api = HttpApi { api_keys, api_rate: rate, ..defaults.http_api };
        Gate::new(&Settings { http_api, ..Settings::default() })
    }

    fn ask(gate: &Gate, key: &str, scope: Scope, from: u32) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        if !key.is_empty() {
            headers.insert(AUTHORIZATION, format!("Bearer {key}").parse().expect("valid"));
        }
        let from = IpAddr::V4(Ipv4Addr::from_bits(from));
        gate.check(&headers, scope, from, *NOW).map(|key| key.name().to_owned()).map_err(|problem| problem.code)
    }

    #[test]
    fn keys_do_what_their_scopes_say() {
        let gate = gate(0);
        assert_eq!(ask(&gate, "one", Scope::Read, 1).as_deref(), Ok("reader"));
        assert_eq!(ask(&gate, "two", Scope::Publish, 1).as_deref(), Ok("writer"));
        assert_eq!(ask(&gate, "one", Scope::Publish, 1), Err(Code::Forbidden));
        assert_eq!(ask(&gate, "two", Scope::Admin, 1), Err(Code::Forbidden));
        assert_eq!(ask(&gate, "three", Scope::Read, 1), Err(Code::Unauthorized));
        assert_eq!(ask(&gate, "", Scope::Read, 1), Err(Code::Unauthorized));
        let closed = Gate::new(&Settings::default());
        assert_eq!(ask(&closed, "one", Scope::Read, 1), Err(Code::ApiDisabled));
    }

    #[test]
    fn two_authorizations_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer one".parse().expect("valid"));
        headers.append(AUTHORIZATION, "Bearer one".parse().expect("valid"));
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let refused = gate(0).check(&headers, Scope::Read, from, Instant::now()).map(|_| ()).expect_err("refused");
        assert_eq!(refused.code, Code::Unauthorized);
    }

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let gate = gate(5);
        let taken = (0..20).take_while(|_| ask(&gate, "one", Scope::Read, 1).is_ok()).count();
        assert_eq!(taken, 5);
        assert_eq!(ask(&gate, "one", Scope::Read, 1), Err(Code::RateLimited));
        assert!(ask(&gate, "two", Scope::Read, 1).is_ok());
    }

    #[test]
    fn guessing_ends_but_not_for_the_key_that_was_there_before() {
        let gate = gate(0);
        assert!(ask(&gate, "one", Scope::Read, 1).is_ok());
        let wrong = (0..100).take_while(|_| ask(&gate, "no", Scope::Read, 1) == Err(Code::Unauthorized)).count();
        assert_eq!(wrong, MOST_FAILURES as usize);
        assert_eq!(ask(&gate, "no", Scope::Read, 1), Err(Code::RateLimited));
        assert_eq!(ask(&gate, "two", Scope::Read, 1), Err(Code::RateLimited), "a right guess is no better");
        assert!(ask(&gate, "one", Scope::Read, 1).is_ok());
        assert!(ask(&gate, "two", Scope::Read, 2).is_ok(), "another address");
    }

    #[test]
    fn failures_are_forgiven_one_by_one() {
        let gate = gate(0);
        let (from, start) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now());
        let wrong = |after: Duration| gate.failed(from, start + after, "no").code;
        assert!((0..MOST_FAILURES).all(|_| wrong(Duration::ZERO) == Code::Unauthorized));
        assert_eq!(wrong(Duration::ZERO), Code::RateLimited);
        assert_eq!(wrong(FORGIVEN), Code::Unauthorized);
        assert_eq!(wrong(FORGIVEN), Code::RateLimited);
        assert_eq!(wrong(3 * FORGIVEN), Code::Unauthorized);
    }

    #[test]
    fn addresses_do_not_pile_up() {
        let gate = gate(0);
        assert!(ask(&gate, "one", Scope::Read, 0).is_ok());
        for from in 1..=2 * MOST_ADDRESSES as u32 {
            assert_eq!(ask(&gate, "no", Scope::Read, from), Err(Code::Unauthorized));
        }
        let attempts = gate.attempts.lock().expect("no panic");
        assert_eq!(attempts.len(), MOST_ADDRESSES);
        assert!(attempts.contains_key(&IpAddr::V4(Ipv4Addr::from_bits(0))), "who has a key stays");
    }
}
