//! Layers flags over environment over `.env` over file over defaults. Called once by main, with everything injected.
//!
//! The lower layers become flags in front of the ones that were typed, so that one parser reads them all. It must not
//! know single settings, but for `config` (the file) and the two defaults that are found at start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::error::{WrongValue, explain, most_similar};
use super::token_args::TokenArgs;
use super::{ApiKey, ConfigError, Origin, Password, Settings, file, key_verb, parse, password::HIDDEN, print};

/// What every variable of ours begins with.
const PREFIX: &str = "ROOMCAST_";

/// A Roomcast node: WebSocket rooms that span nodes.
///
/// Every option is also an environment variable (--ping-interval is `ROOMCAST_PING_INTERVAL`), a line in `.env` and a
/// key of the file given with --config (`ping_interval`); the first of these that has it wins.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, max_term_width = 110, allow_negative_numbers = true)]
pub(super) struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// What to do
    #[arg(value_enum, default_value = "run")]
    command: Verb,

    /// With pause: for how long, such as 5s
    #[arg(required_if_eq("command", "pause"), value_parser = parse::duration("0s", "1h"))]
    duration: Option<Duration>,

    /// With probe: asks only whether the node lives (/healthz), not whether it is ready to serve (/readyz)
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Runs the node
    Run,
    /// Prints the settings in force as a file for --config, each with its origin
    Config,
    /// Asks the running node of these settings whether it is ready, within 2s. Exits with 0 if it is, else with 1 and
    /// the reason on stderr
    Probe,
    /// Looks whether a node with these settings would work: the settings, Redis, its set-up and permissions. Says what is
    /// wrong and how to mend it; exits with 0 if nothing is, else with 1
    Check,
    /// Prints a token that a node with these settings takes, signed with --jwt-secret. For trying things out
    Token,
    /// Waits for the duration that follows, then exits with 0. Where there is no shell to sleep in
    Pause,
    /// Makes a key of the HTTP API: gateway key NAME --scopes read,publish,admin
    Key,
    /// Prints the version
    Version,
}

/// What main is asked to do.
#[derive(Debug)]
pub enum Action {
    /// Run a node.
    Run(Box<Settings>),
    /// Print this to stdout and exit with 0.
    Print(String),
    /// Ask the node that runs with these settings how it is.
    Probe {
        /// Its settings.
        settings: Box<Settings>,
        /// Ask only whether it lives.
        live: bool,
    },
    /// Look whether a node with these settings would work.
    Check(Box<Settings>),
    /// Print a token that the node of these settings takes.
    Token {
        /// Its settings.
        settings: Box<Settings>,
        /// What it says.
        says: TokenArgs,
    },
    /// Wait for so long and exit with 0.
    Pause(Duration),
}

/// Values of one setting, as text; an empty list says "not set".
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

/// The settings that somebody gave, by id.
pub(super) type Layer = BTreeMap<String, Given>;

/// One setting of the clap command.
pub(super) struct Setting<'a>(pub(super) &'a Arg);

impl Setting<'_> {
    /// All settings, in the order of the struct.
    pub(super) fn all(command: &clap::Command) -> impl Iterator<Item = Setting<'_>> {
        command.get_arguments().map(Setting).filter(|setting| setting.0.get_long().is_some() && !setting.is_builtin())
    }

    fn is_builtin(&self) -> bool {
        matches!(self.id(), "help" | "version" | "live") || TokenArgs::is_id(self.id())
    }

    /// The key in the file.
    pub(super) fn id(&self) -> &str {
        self.0.get_id().as_str()
    }

    /// The flag.
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.0.get_long().unwrap_or_default())
    }

    /// The variable.
    pub(super) fn env(&self) -> String {
        format!("{PREFIX}{}", self.id().to_ascii_uppercase())
    }

    /// Whether several values may be given.
    pub(super) fn is_list(&self) -> bool {
        self.0.get_value_delimiter().is_some()
    }

    /// Whether an empty value says "not set".
    pub(super) fn is_optional(&self) -> bool {
        self.0.get_default_values().is_empty()
    }

    /// Whether no value of it may ever be shown.
    pub(super) fn is_secret(&self) -> bool {
        self.0.get_value_parser().type_id() == std::any::TypeId::of::<Password>()
    }

    /// `value` as it may be shown.
    pub(super) fn shown(&self, value: &str) -> String {
        match self.0.get_value_parser().type_id() {
            _ if self.is_secret() => HIDDEN.to_owned(),
            kind if kind == std::any::TypeId::of::<ApiKey>() => ApiKey::redact(value),
            _ => parse::redact(value),
        }
    }

    fn given(&self, text: &str, origin: Origin) -> Given {
        let values = match text {
            "" if self.is_optional() => Vec::new(),
            _ if self.is_list() => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => vec![text.to_owned()],
        };
        Given { values, origin }
    }
}

/// Everything that was read, before it is checked as a whole.
pub(super) struct Loaded {
    pub(super) settings: Settings,
    pub(super) layer: Layer,
    pub(super) command: clap::Command,
    pub(super) matches: ArgMatches,
}

impl Settings {
    /// Reads all sources, each once, and checks everything before anything is bound.
    ///
    /// `args` begin with the program's name, `environment` is normally `std::env::vars_os()`, `.env` is looked for in
    /// `directory` only.
    ///
    /// # Errors
    /// The first thing that is wrong, with its name, its value, where it came from and what was expected.
    pub fn load(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
    ) -> Result<Action, ConfigError> {
        let command = Cli::command();
        let args: Vec<OsString> = args.into_iter().collect();
        if let Some(action) = key_verb::asked(&args) {
            return action;
        }
        let typed = match command.clone().try_get_matches_from(&args) {
            Ok(typed) => typed,
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Ok(Action::Print(error.render().to_string()));
            }
            Err(error) => return Err(explain(&command, &Layer::new(), &error)),
        };
        let verb = typed.get_one::<Verb>("command").copied().unwrap_or(Verb::Run);
        let live = typed.get_flag("live");
        if live && verb != Verb::Probe {
            return Err(ConfigError::Usage("--live belongs to probe".to_owned()));
        }
        if verb != Verb::Token && TokenArgs::are_given(&typed) {
            return Err(ConfigError::Usage("--user, --name, --rooms and the like belong to token".to_owned()));
        }
        match (verb, typed.get_one::<Duration>("duration").copied()) {
            (Verb::Version, None) => return Ok(Action::Print(command.render_version())),
            // Whatever the settings are: a node that is told to end must get its pause.
            (Verb::Pause, Some(duration)) => return Ok(Action::Pause(duration)),
            (Verb::Key, _) => return Err(key_verb::misplaced()),
            (_, Some(_)) => return Err(ConfigError::Usage("a duration belongs to pause".to_owned())),
            (_, None) => {}
        }
        let loaded = read_layers(command, &typed, &args, environment, directory)?;
        Ok(match verb {
            Verb::Config => Action::Print(print::effective(&loaded)),
            Verb::Probe => Action::Probe { settings: Box::new(loaded.settings), live },
            Verb::Token => {
                let says = TokenArgs::from_arg_matches(&typed)
                    .map_err(|error| explain(&loaded.command, &loaded.layer, &error))?;
                Action::Token { settings: Box::new(loaded.settings), says }
            }
            Verb::Check => Action::Check(Box::new(loaded.settings)),
            Verb::Run | Verb::Pause | Verb::Key | Verb::Version => Action::Run(Box::new(loaded.settings)),
        })
    }
}

impl Default for Settings {
    /// The defaults, with a random node id. For tests.
    #[allow(clippy::expect_used)] // The defaults are constants, and a test holds them.
    fn default() -> Self {
        let none = std::iter::empty::<(OsString, OsString)>();
        match Self::load([OsString::from("gateway")], none, Path::new("/nonexistent")).expect("valid defaults") {
            Action::Run(settings) => *settings,
            _ => unreachable!("no verb was given"),
        }
    }
}

fn read_layers(
    command: clap::Command,
    typed: &ArgMatches,
    args: &[OsString],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    directory: &Path,
) -> Result<Loaded, ConfigError> {
    let mut layer = dotenv_layer(&command, directory)?;
    layer.extend(environment_layer(&command, environment)?);
    let typed_file = typed.get_one::<PathBuf>("config").cloned();
    let given_file = || layer.get("config").and_then(|given| given.values.first()).map(PathBuf::from);
    let (mut rooms, mut issuers, mut entries) = (super::RoomPolicies::default(), Vec::new(), Vec::new());
    let path = typed_file.or_else(given_file);
    if let Some(path) = &path {
        let content = file::read(&command, path)?;
        (rooms, issuers, entries) = (content.rooms, content.issuers, content.webhooks);
        for (id, given) in content.layer {
            layer.entry(id).or_insert(given);
        }
    }
    layer.retain(|id, _| typed.value_source(id) != Some(ValueSource::CommandLine));
    add_found_defaults(&mut layer, typed);

    let line = command_line(&command, &layer, args);
    let parsed = command.clone().try_get_matches_from(line).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli.settings, matches))
    });
    let (mut settings, matches) = parsed.map_err(|error| explain(&command, &layer, &error))?;
    settings.rooms = rooms;
    settings.issuers = issuers;
    if let Err((id, expected)) = settings.add_webhooks(entries).and_then(|()| settings.check()) {
        return Err(value_error(&command, &layer, &matches, id, &expected));
    }
    if let Err((index, problem)) = settings.check_issuers() {
        return Err(ConfigError::Issuers { path: path.unwrap_or_default(), index, problem });
    }
    Ok(Loaded { settings, layer, command, matches })
}

/// The defaults that depend on the machine or on chance.
fn add_found_defaults(layer: &mut Layer, typed: &ArgMatches) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(1024);
    let found = [("workers", cores.to_string()), ("node_id", format!("n-{:08x}", rand::random::<u32>()))];
    for (id, value) in found {
        let is_given = layer.get(id).is_some_and(|given| !given.values.is_empty());
        if typed.value_source(id).is_none() && !is_given {
            layer.insert(id.to_owned(), Given { values: vec![value], origin: Origin::Default });
        }
    }
}

/// The program's name, the lower layers as flags, and what was typed.
fn command_line(command: &clap::Command, layer: &Layer, args: &[OsString]) -> Vec<OsString> {
    let lower = Setting::all(command).filter_map(|setting| {
        let given = layer.get(setting.id())?;
        (!given.values.is_empty()).then(|| format!("{}={}", setting.flag(), given.values.join(",")).into())
    });
    args.iter().take(1).cloned().chain(lower).chain(args.iter().skip(1).cloned()).collect()
}

fn environment_layer(
    command: &clap::Command,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Some(value) = value.to_str() else {
            return Err(ConfigError::Usage(format!("{name} in the environment: expected UTF-8 text")));
        };
        add_variable(command, &mut layer, name, value, &Origin::Environment)?;
    }
    Ok(layer)
}

fn dotenv_layer(command: &clap::Command, directory: &Path) -> Result<Layer, ConfigError> {
    let path = directory.join(".env");
    let mut layer = Layer::new();
    // A directory of that name is somebody's virtual environment, not our file.
    if !path.is_file() {
        return Ok(layer);
    }
    let broken = |error| ConfigError::File { path: path.clone(), problem: line_problem(&path, error) };
    for line in dotenvy::from_path_iter(&path).map_err(broken)? {
        let (name, value) = line.map_err(broken)?;
        if name.starts_with(PREFIX) {
            add_variable(command, &mut layer, &name, &value, &Origin::DotEnv(path.clone()))?;
        }
    }
    Ok(layer)
}

/// Where, but without the line itself, which may be the one with the password.
fn line_problem(path: &Path, error: dotenvy::Error) -> String {
    let dotenvy::Error::LineParse(part, _) = error else { return error.to_string() };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let before = text.find(&part).and_then(|at| text.get(..at));
    let place = before.map_or_else(|| "a line".to_owned(), |text| format!("line {}", text.split('\n').count()));
    format!("{place} cannot be read: expected NAME=value, and quotes around a value with blanks or $ \" ' #")
}

fn add_variable(
    command: &clap::Command,
    layer: &mut Layer,
    name: &str,
    value: &str,
    origin: &Origin,
) -> Result<(), ConfigError> {
    if let Some(setting) = Setting::all(command).find(|setting| setting.env() == name) {
        layer.insert(setting.id().to_owned(), setting.given(value, origin.clone()));
    } else if !is_service_link(name) {
        let names = Setting::all(command).map(|setting| setting.env());
        let similar = most_similar(name, names);
        return Err(ConfigError::Unknown { name: name.to_owned(), origin: origin.clone(), similar });
    }
    Ok(())
}

/// Kubernetes gives every container variables for each service of its namespace; for services called `roomcast...`
/// they look like ours (`ROOMCAST_SERVICE_HOST`, `ROOMCAST_PORT_8080_TCP_ADDR`). No setting may end like these.
fn is_service_link(name: &str) -> bool {
    let name = name.trim_end_matches("_ADDR").trim_end_matches("_PROTO");
    let transport = |text: &str| ["_TCP", "_UDP", "_SCTP"].iter().any(|end| text.ends_with(end));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || (name.contains("_PORT_") && transport(name))
}

fn value_error(
    command: &clap::Command,
    layer: &Layer,
    matches: &ArgMatches,
    id: &'static str,
    expected: &str,
) -> ConfigError {
    let setting = Setting::all(command).find(|setting| setting.id() == id);
    let raw = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
    ConfigError::Value(Box::new(WrongValue {
        flag: setting.as_ref().map_or_else(|| id.to_owned(), Setting::flag),
        env: setting.as_ref().map_or_else(String::new, Setting::env),
        value: setting.map_or_else(String::new, |setting| setting.shown(&raw.collect::<Vec<_>>().join(","))),
        origin: origin(layer, matches, id),
        expected: format!("expected {expected}"),
    }))
}

/// Who gave the value that is in force.
pub(super) fn origin(layer: &Layer, matches: &ArgMatches, id: &str) -> Origin {
    match (layer.get(id), matches.value_source(id)) {
        (Some(given), _) => given.origin.clone(),
        (None, Some(ValueSource::CommandLine)) => Origin::Flag,
        _ => Origin::Default,
    }
}
