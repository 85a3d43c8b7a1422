//! The settings of the HTTP API and of video, which is asked for there. Part of [`super::Settings`].

use std::time::Duration;

use clap::Args;

use super::parse::{count, duration};
use super::{ApiKey, PageModule, Password, SocketUrl};

/// Who may call, and where LiveKit is.
#[derive(Debug, Clone, Args)]
pub struct HttpApi {
    /// Keys of the HTTP API, comma-separated, as `gateway key` prints them. Without one the API is closed
    #[arg(long, value_delimiter = ',')]
    pub api_keys: Vec<ApiKey>,

    /// Requests a second that one key may make of one node, a second's worth of them at once, 0 for no limit
    #[arg(long, default_value = "200", value_parser = count::<u32>(0, 1_000_000))]
    pub api_rate: u32,

    /// LiveKit server that clients are sent to for video, `wss://`. Without it there is no video
    #[arg(long)]
    pub livekit_url: Option<SocketUrl>,

    /// Name of the key that tokens for LiveKit are signed with
    #[arg(long, value_parser = key_name)]
    pub livekit_api_key: Option<String>,

    /// Secret of that key
    #[arg(long, allow_hyphen_values = true)]
    pub livekit_api_secret: Option<Password>,

    /// Time within which a token has to be used to enter a call; who is in one stays
    #[arg(long, default_value = "2m", value_parser = duration("10s", "6h"))]
    pub livekit_token_ttl: Duration,

    /// URL of LiveKit's client as one ES module, which the page loads for video
    #[arg(long)]
    pub livekit_client_url: Option<PageModule>,
}

fn key_name(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 characters of ASCII, none of them blank".to_owned())
    }
}

impl HttpApi {
    /// Either everything that a token needs, or nothing; and no name of a key twice.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let secret = Password::given(self.livekit_api_secret.as_ref()).is_some();
        let given = [
            ("livekit_url", self.livekit_url.is_some()),
            ("livekit_api_key", self.livekit_api_key.is_some()),
            ("livekit_api_secret", secret),
        ];
        if let Some((missing, _)) = given.iter().find(|(_, given)| !given)
            && given.iter().any(|(_, given)| *given)
        {
            let words = "a value, since one of --livekit-url, --livekit-api-key and --livekit-api-secret is given";
            return Err((missing, words.to_owned()));
        }
        if self.livekit_client_url.is_some() && self.livekit_url.is_none() {
            return Err(("livekit_client_url", "nothing, unless --livekit-url is given".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Action, Settings};

    fn load(args: &[&str]) -> Result<Action, String> {
        let args = ["gateway"].iter().chain(args).map(Into::into);
        Settings::load(args, std::iter::empty(), Path::new("/nonexistent")).map_err(|error| error.to_string())
    }

    #[test]
    fn video_is_configured_as_a_whole() {
        let (url, key, secret) = ("--livekit-url=wss://h", "--livekit-api-key=k", "--livekit-api-secret=s");
        assert!(load(&[]).is_ok() && load(&[url, key, secret]).is_ok());
        for (args, missing) in [
            (&[key, secret][..], "--livekit-url "),
            (&[url, secret], "--livekit-api-key "),
            (&[url, key], "--livekit-api-secret "),
            (&["--livekit-client-url=https://h/x.mjs"], "--livekit-client-url "),
            (
                &[url, key, secret, "--authorize-url=https://h/", "--authorize-secret=0123456789abcdef"],
                "--livekit-url ",
            ),
        ] {
            let error = load(args).expect_err("refused");
            assert!(error.starts_with(missing), "{args:?}: {error}");
        }
    }

    #[test]
    fn keys_and_secrets_are_not_printed() {
        let digest = "0123456789abcdef".repeat(4);
        let keys = format!("--api-keys=shop:read:{digest},other:admin+publish:{digest}");
        let livekit = ["--livekit-url=wss://h", "--livekit-api-key=k", "--livekit-api-secret=hunter2"];
        let Ok(Action::Print(text)) = load(&[&["config", &*keys][..], &livekit].concat()) else {
            panic!("config prints")
        };
        assert!(text.contains(r#"api_keys = ["shop:read:***", "other:admin+publish:***"]"#), "{text}");
        assert!(!text.contains("0123456789abcdef") && !text.contains("hunter2"), "{text}");
        let error = load(&[&format!("--api-keys=shop:write:{digest}")]).expect_err("refused");
        assert!(error.contains("shop:write:***") && !error.contains("0123456789abcdef"), "{error}");
        // A key where its line should stand.
        let error = load(&["--api-keys=rck_secretsecretsecret"]).expect_err("refused");
        assert!(!error.contains("rck_"), "{error}");
    }
}
