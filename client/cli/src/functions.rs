//! `fleetline functions …`: deploys and looks after function apps.
//!
//! All but `start` are requests to the hub's management interface (`/functions/apps`), with the token of a
//! policy that may write the registry and connect as a service. `start` runs a node, so it is done by
//! `broker/server`; here are its arguments. `fleetline demo` deploys with [`deploy`], too.
//!
//! Not here: packing (`pack`, `ignore`), tables (`show`), the engine (`broker/functions`).

mod ignore;
mod pack;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{HeaderName, Method};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::hub::HubArgs;
use crate::rest::{Call, Rest};
use crate::{CliError, ContextArgs};

pub(crate) use show::now_secs;

/// The hub stores the archive and starts a worker to find out what functions there are: seconds, and a
/// minute on a machine that is busy.
const DEPLOY_MAX: Duration = Duration::from_secs(120);
/// The header of a deployment that brings settings.
const SETTINGS_HEADER: HeaderName = HeaderName::from_static("x-fleetline-settings");
/// Bytes of it; a request's head has 32 KiB at the most.
const SETTINGS_HEADER_MAX: usize = 16 << 10;
/// How long nodes may take to take a new version.
const ACTIVE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(200);

/// Commands on function apps, and the hub that they go to.
#[derive(Args, Debug)]
pub struct FunctionsArgs {
    #[command(flatten)]
    hub: HubArgs,
    #[command(subcommand)]
    command: FunctionsCommand,
}

/// Commands on function apps.
#[derive(Subcommand, Debug)]
pub enum FunctionsCommand {
    /// Deploys the app in a folder, and waits until it runs.
    #[command(after_help = "Examples:
  fleetline functions deploy examples/flights/alarm
      As the app `alarm`: the folder's name.
  fleetline functions deploy . --app fleet --setting LIMIT=2000 --setting REGION=eu

The folder is an Azure Functions app (Python v1 or v2, Node v3 or v4), or one with WebAssembly components; it has
a host.json. Packages belong into it before: `pip install -r requirements.txt --target .python_packages/lib/site-packages`,
`npm install --omit=dev`. What .funcignore names stays here, and so does local.settings.json: use --setting.")]
    Deploy(DeployArgs),
    /// Lists all apps.
    List {
        /// Print JSON, as the hub gives it.
        #[arg(long)]
        json: bool,
    },
    /// Shows an app: its functions with what they count, and its versions. Without a name, all apps.
    Status {
        /// The app.
        #[arg(value_parser = app_name)]
        app: Option<String>,
        /// Print JSON, as the hub gives it.
        #[arg(long)]
        json: bool,
    },
    /// Shows what an app's functions and workers have logged.
    #[command(after_help = "Examples:
  fleetline functions logs alarm --tail 20
  fleetline functions logs alarm --function alarm --follow")]
    Logs(LogsArgs),
    /// Makes an earlier version the active one; without a number, the one before.
    Rollback {
        /// The app.
        #[arg(value_parser = app_name)]
        app: String,
        /// The version; `status` shows which are kept.
        version: Option<u64>,
    },
    /// Removes an app with all its versions, settings, keys and state.
    Delete {
        /// The app.
        #[arg(value_parser = app_name)]
        app: String,
    },
    /// Prints an app's settings; with NAME=VALUE they are changed first. They are the functions' environment.
    #[command(after_help = "Examples:
  fleetline functions settings alarm
  fleetline functions settings alarm VERTICAL_RATE_LIMIT=2500
  fleetline functions settings alarm --remove VERTICAL_RATE_LIMIT")]
    Settings(SettingsArgs),
    /// Prints the keys by which HTTP functions may be called; with --new one is drawn.
    #[command(after_help = "Examples:
  fleetline functions keys shop
  fleetline functions keys shop --new partner
      For all functions. The key goes into the header x-functions-key, or ?code=.
  fleetline functions keys shop --new partner --function order
  fleetline functions keys shop --new _master")]
    Keys(KeysArgs),
    /// Turns a function on.
    Enable(FunctionOf),
    /// Turns a function off; its records wait.
    Disable(FunctionOf),
    /// Runs the app in a folder on this machine, and loads it again when a file changes.
    #[command(
        after_help = "Example: fleetline functions start examples/flights/alarm --workers target/workers

Runs a node of its own in --data, as `fleetline serve` does, so nothing else is needed: what devices send there
starts the functions. Settings come from local.settings.json. Ctrl-C ends it."
    )]
    Start(StartArgs),
}

/// What to deploy.
#[derive(Args, Debug)]
pub struct DeployArgs {
    /// The app's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The app's name: small letters, digits and dashes. Without it, the folder's name.
    #[arg(long, value_parser = app_name)]
    app: Option<String>,
    /// A setting; may be given again. Others stay as they are.
    #[arg(long, value_parser = setting, value_name = "NAME=VALUE")]
    setting: Vec<(String, String)>,
    /// Deploy also what is deployed already.
    #[arg(long)]
    force: bool,
}

/// Which lines to show.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The app.
    #[arg(value_parser = app_name)]
    app: String,
    /// Only of this function.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// So many of the last lines: 1 to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    tail: u16,
    /// Go on with new lines until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
}

/// Settings to change.
#[derive(Args, Debug)]
pub struct SettingsArgs {
    /// The app.
    #[arg(value_parser = app_name)]
    app: String,
    /// What to set.
    #[arg(value_parser = setting, value_name = "NAME=VALUE")]
    set: Vec<(String, String)>,
    /// Remove this one; may be given again.
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
}

/// Keys to look at, or one to draw.
#[derive(Args, Debug)]
pub struct KeysArgs {
    /// The app.
    #[arg(value_parser = app_name)]
    app: String,
    /// Draw a key of this name; one that there was is no longer good. `_master` is the master key.
    #[arg(long, value_name = "NAME")]
    new: Option<String>,
    /// For this function only.
    #[arg(long, requires = "new", value_name = "NAME")]
    function: Option<String>,
}

/// A function of an app.
#[derive(Args, Debug)]
pub struct FunctionOf {
    /// The app.
    #[arg(value_parser = app_name)]
    app: String,
    /// The function.
    function: String,
}

/// What to run on this machine.
#[derive(Args, Debug)]
pub struct StartArgs {
    /// The app's folder.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The app's name. Without it, the folder's name.
    #[arg(long, value_parser = app_name)]
    pub app: Option<String>,
    /// The data folder of the node.
    #[arg(long, value_name = "DIR", default_value = "./fleetline-data")]
    pub data: PathBuf,
    /// Folder with what Python and Node functions need (broker/workers/setup.sh makes it).
    #[arg(long, value_name = "DIR")]
    pub workers: Option<PathBuf>,
    /// Where HTTP is served without TLS, for functions with HTTP triggers.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7071")]
    pub listen: std::net::SocketAddr,
}

impl FunctionsArgs {
    /// The arguments of `start`, which isn't done here.
    pub fn start(&self) -> Option<&StartArgs> {
        match &self.command {
            FunctionsCommand::Start(args) => Some(args),
            _ => None,
        }
    }
}

/// How an app came to be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployed {
    /// As a new version.
    Version(u64),
    /// It was, with the same archive: nothing was done.
    Already(u64),
}

pub(crate) async fn run(context: &ContextArgs, args: FunctionsArgs) -> Result<(), CliError> {
    let mut rest = Rest::new(args.hub.find(context)?);
    execute(&mut rest, args.command, &mut |line| say!("{line}")).await
}

/// Does what a command says; gives lines to `out`.
async fn execute(
    rest: &mut Rest,
    command: FunctionsCommand,
    out: &mut impl FnMut(String),
) -> Result<(), CliError> {
    match command {
        FunctionsCommand::Deploy(args) => return deploy_and_show(rest, args, out).await,
        FunctionsCommand::List { json } => {
            let answer = get(rest, &[]).await?;
            match (json, show::list(&answer)) {
                (true, _) => out(format!("{answer:#}")),
                (false, Some(table)) => out(table),
                (false, None) => {
                    eprintln!("no app is there; `fleetline functions deploy FOLDER` deploys one")
                }
            }
        }
        FunctionsCommand::Status { app, json } => return status(rest, app, json, out).await,
        FunctionsCommand::Logs(args) => return logs(rest, &args, out).await,
        FunctionsCommand::Rollback { app, version } => {
            let body = version.map_or_else(|| json!({}), |version| json!({ "version": version }));
            let call = Call::new(Method::POST, &place(&[&app, "rollback"])).json(&body).hub_waits(DEPLOY_MAX);
            let answer = rest.call(call).await?.json()?;
            out(format!("{app} is at version {}", answer["version"]));
        }
        FunctionsCommand::Delete { app } => {
            rest.call(Call::new(Method::DELETE, &place(&[&app]))).await?;
            out(format!("{app} is removed"));
        }
        FunctionsCommand::Settings(args) => {
            let settings = settings(rest, &args.app, &args.set, &args.remove).await?;
            settings.iter().for_each(|(name, value)| out(format!("{name}={}", text(value))));
        }
        FunctionsCommand::Keys(args) => return keys(rest, &args, out).await,
        FunctionsCommand::Enable(of) => out(turn(rest, &of, "enable").await?),
        FunctionsCommand::Disable(of) => out(turn(rest, &of, "disable").await?),
        FunctionsCommand::Start(_) => {
            return Err(CliError::Usage("`start` runs a node: only the program `fleetline` can".to_owned()));
        }
    }
    Ok(())
}

fn place<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let mut segments = vec!["functions", "apps"];
    segments.extend(rest);
    segments
}

async fn get(rest: &mut Rest, of: &[&str]) -> Result<Value, CliError> {
    rest.call(Call::new(Method::GET, &place(of))).await?.json()
}

/// Deploys the app in a folder, unless the active version is the same archive (or `force` says so), and
/// waits until a node runs it. Settings are there when the hub first looks at the app. `say` hears what is
/// done.
///
/// # Errors
/// When the folder is no app, or the hub refuses or doesn't run it.
pub async fn deploy(
    rest: &mut Rest,
    app: &str,
    folder: &Path,
    force: bool,
    set: &[(String, String)],
    mut say: impl FnMut(String),
) -> Result<Deployed, CliError> {
    say(format!("{app}: packing {}", folder.display()));
    let from = folder.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack::pack(&from)).await;
    let packed = packed.map_err(|error| CliError::Failed(error.to_string()))??;
    if !force && let Some(version) = active(rest, app, &packed.sha256).await? {
        if !set.is_empty() {
            settings(rest, app, set, &[]).await?;
        }
        return Ok(Deployed::Already(version));
    }
    let (files, kib) = (packed.files, packed.bytes.len().div_ceil(1024));
    say(format!("{app}: sending {files} files, {kib} KiB; the hub starts a worker to look at them"));
    let mut call =
        Call::new(Method::POST, &place(&[app])).bytes(Bytes::from(packed.bytes)).hub_waits(DEPLOY_MAX);
    if !set.is_empty() {
        call = call.header(SETTINGS_HEADER, &settings_header(set)?)?;
    }
    let answer = rest.call(call).await?.json()?;
    let version = answer["version"].as_u64().unwrap_or_default();
    say(format!("{app}: version {version} is stored, waiting until it runs"));
    wait_until_active(rest, app, version).await?;
    Ok(Deployed::Version(version))
}

/// Settings as a header: JSON in Base64.
fn settings_header(set: &[(String, String)]) -> Result<String, CliError> {
    let settings: BTreeMap<&str, &str> =
        set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let text = STANDARD.encode(json!(settings).to_string());
    match text.len() > SETTINGS_HEADER_MAX {
        true => Err(CliError::Usage(
            "these settings are too long for one deployment\nhint: deploy without them, then use `fleetline functions \
             settings`"
                .to_owned(),
        )),
        false => Ok(text),
    }
}

/// The active version of an app, if it is of this archive.
async fn active(rest: &mut Rest, app: &str, sha256: &str) -> Result<Option<u64>, CliError> {
    let call = Call::new(Method::GET, &place(&[app]));
    let (status, reply) = rest.answer(&call).await?;
    // No such app, or whatever it is: deploying says it better.
    if !status.is_success() {
        return Ok(None);
    }
    let found = reply.json()?;
    let versions = found["versions"].as_array().into_iter().flatten();
    let mut same = versions.filter(|version| version["sha256"] == sha256);
    Ok(same
        .find(|version| version["version"] == found["activeVersion"])
        .and_then(|it| it["version"].as_u64()))
}

async fn wait_until_active(rest: &mut Rest, app: &str, version: u64) -> Result<(), CliError> {
    let give_up = Instant::now() + ACTIVE_MAX;
    loop {
        let found = get(rest, &[app]).await?;
        // Somebody else may have deployed meanwhile: a later one is as good.
        let is_active = found["activeVersion"].as_u64().is_some_and(|active| active >= version);
        let runs = found["functions"].as_array().is_some_and(|functions| !functions.is_empty());
        if is_active && runs {
            return Ok(());
        }
        if Instant::now() >= give_up {
            return Err(CliError::Failed(format!(
                "version {version} of {app} is stored, but no node has taken it within {} s\nhint: `fleetline \
                 functions logs {app}` and the nodes' own log say why; does a node run with `functions = true`?",
                ACTIVE_MAX.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
}

async fn deploy_and_show(
    rest: &mut Rest,
    args: DeployArgs,
    out: &mut impl FnMut(String),
) -> Result<(), CliError> {
    let app = match args.app {
        Some(app) => app,
        None => name_of(&args.folder)?,
    };
    let bar = spinner();
    let deployed =
        deploy(rest, &app, &args.folder, args.force, &args.setting, |line| bar.set_message(line)).await;
    bar.finish_and_clear();
    let deployed = deployed?;
    let found = get(rest, &[&app]).await?;
    match deployed {
        Deployed::Version(version) => out(format!("{app} is deployed as version {version}")),
        Deployed::Already(version) => {
            out(format!("{app} is unchanged: version {version} is the same archive"))
        }
    }
    out(show::status(&found));
    match show::broken(&found).as_slice() {
        [] => Ok(()),
        broken => Err(CliError::Failed(format!(
            "some functions can't run:\n  {}\nhint: `fleetline functions rollback {app}` goes back",
            broken.join("\n  ")
        ))),
    }
}

/// On standard error; invisible where that is no terminal.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The app's name when none is given: that of its folder.
///
/// # Errors
/// When the folder's name can't be one.
pub fn name_of(folder: &Path) -> Result<String, CliError> {
    let whole = std::path::absolute(folder)?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase().replace('_', "-");
    app_name(&name).map_err(|error| CliError::Usage(format!("{error}\nhint: name the app with --app")))
}

async fn status(
    rest: &mut Rest,
    app: Option<String>,
    json: bool,
    out: &mut impl FnMut(String),
) -> Result<(), CliError> {
    let names = match app {
        Some(app) => vec![app],
        None => {
            let all = get(rest, &[]).await?;
            let apps = all["apps"].as_array().into_iter().flatten();
            apps.filter_map(|app| app["name"].as_str().map(str::to_owned)).collect()
        }
    };
    for (index, name) in names.iter().enumerate() {
        let found = get(rest, &[name]).await?;
        match json {
            true => out(format!("{found:#}")),
            false if index > 0 => out(format!("\n{}", show::status(&found))),
            false => out(show::status(&found)),
        }
    }
    Ok(())
}

async fn logs(rest: &mut Rest, args: &LogsArgs, out: &mut impl FnMut(String)) -> Result<(), CliError> {
    let mut call = Call::new(Method::GET, &place(&[&args.app, "logs"])).query("tail", &args.tail.to_string());
    if let Some(function) = &args.function {
        call = call.query("function", function);
    }
    if !args.follow {
        let answer = rest.call(call).await?.json()?;
        answer["lines"].as_array().into_iter().flatten().for_each(|line| out(show::log_line(line)));
        return Ok(());
    }
    // Lines come whole or not: a piece may end within one, or within a letter.
    let mut rest_of_line = Vec::new();
    let lines = |piece: &[u8]| {
        rest_of_line.extend_from_slice(piece);
        while let Some(end) = rest_of_line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest_of_line.drain(..=end).collect();
            out(show::printable(String::from_utf8_lossy(&line).trim_end_matches('\n')));
        }
        Ok(())
    };
    rest.follow(call.query("follow", "true"), lines).await
}

/// An app's settings, after these changes.
async fn settings(
    rest: &mut Rest,
    app: &str,
    set: &[(String, String)],
    remove: &[String],
) -> Result<Map<String, Value>, CliError> {
    let found = get(rest, &[app, "settings"]).await?;
    let mut settings = found.as_object().cloned().unwrap_or_default();
    if set.is_empty() && remove.is_empty() {
        return Ok(settings);
    }
    if let Some(unknown) = remove.iter().find(|name| !settings.contains_key(*name)) {
        return Err(CliError::Failed(format!("{app} has no setting {unknown}")));
    }
    remove.iter().for_each(|name| drop(settings.remove(name)));
    let set: BTreeMap<_, _> = set.iter().cloned().collect();
    settings.extend(set.into_iter().map(|(name, value)| (name, value.into())));
    let body = Value::Object(settings);
    let call = Call::new(Method::PUT, &place(&[app, "settings"])).json(&body).hub_waits(DEPLOY_MAX);
    rest.call(call).await?;
    Ok(body.as_object().cloned().unwrap_or_default())
}

async fn keys(rest: &mut Rest, args: &KeysArgs, out: &mut impl FnMut(String)) -> Result<(), CliError> {
    let place = place(&[&args.app, "keys"]);
    let Some(name) = &args.new else {
        let answer = rest.call(Call::new(Method::GET, &place)).await?.json()?;
        show::keys(&answer).into_iter().for_each(out);
        return Ok(());
    };
    let body = json!({ "name": name, "function": args.function });
    let answer = rest.call(Call::new(Method::POST, &place).json(&body)).await?.json()?;
    out(text(&answer["value"]));
    Ok(())
}

async fn turn(rest: &mut Rest, of: &FunctionOf, how: &str) -> Result<String, CliError> {
    let place = place(&[&of.app, "functions", &of.function, how]);
    rest.call(Call::new(Method::POST, &place)).await?;
    Ok(format!("{} of {} is {how}d", of.function, of.app))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An app's name stands in addresses and as the first label of a host name.
fn app_name(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=40).contains(&text.len())
        && text.bytes().all(is_good)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-');
    match fits {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no name of an app: 1 to 40 small letters, digits and dashes, a letter first"
        )),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests;
