//! What the workers of a node have in common, and how a process of each language is started.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use fleetline_worker::LogLevel;
use tokio::sync::OnceCell;

use crate::gate::{Gate, random_hex};
use crate::identity::{self, Identity};
use crate::launchers;
use crate::lines::Lines;
use crate::memory::{self, Watch};
use crate::options::Options;
use crate::pool::Pool;
use crate::process::{Launch, Process, version_of};
use crate::session::{Runner, StopSignal};
use crate::start::Starter;
use crate::worker::{AppFolder, LoadedFunction, LogSink, Worker, WorkerError, WorkerKind};

/// The workers of a node: one gate, one watch over memory, and the launchers.
///
/// Made once when a node starts. Dropping it, and all workers that came from it, closes the gate.
pub struct Workers {
    host: Arc<Host>,
}

pub(crate) struct Host {
    pub(crate) options: Options,
    gate: Gate,
    watch: Arc<Watch>,
    launchers: PathBuf,
    homes: PathBuf,
    node: PathBuf,
    python_version: OnceCell<String>,
    node_version: OnceCell<String>,
}

/// A language that apps are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

impl Workers {
    /// Opens the gate and writes the launchers into the scratch folder.
    pub async fn start(options: Options) -> io::Result<Self> {
        let gate = Gate::open(options.message_bytes, options.in_flight).await?;
        let (scratch, node) = (options.scratch.clone(), options.node.clone());
        let prepare = move || -> io::Result<(PathBuf, PathBuf, PathBuf)> {
            let (launchers, homes) = prepare_scratch(&scratch)?;
            Ok((launchers, homes, find_program(&node)))
        };
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(io::Error::other)?;
        let (launchers, homes, node) = prepared?;
        let watch = Arc::new(Watch::default());
        tokio::spawn(memory::run(Arc::downgrade(&watch)));
        let (python_version, node_version) = (OnceCell::new(), OnceCell::new());
        let host = Host { options, gate, watch, launchers, homes, node, python_version, node_version };
        Ok(Self { host: Arc::new(host) })
    }

    /// Apps in Python.
    #[must_use]
    pub fn python(&self) -> Arc<dyn WorkerKind> {
        Arc::new(Kind { host: Arc::clone(&self.host), language: Language::Python })
    }

    /// Apps in JavaScript and TypeScript.
    #[must_use]
    pub fn node(&self) -> Arc<dyn WorkerKind> {
        Arc::new(Kind { host: Arc::clone(&self.host), language: Language::Node })
    }
}

struct Kind {
    host: Arc<Host>,
    language: Language,
}

#[async_trait]
impl WorkerKind for Kind {
    fn name(&self) -> &'static str {
        self.language.name()
    }

    fn fits(&self, app: &AppFolder) -> bool {
        // The setting decides where there is one; else what lies in the folder.
        if let Some(runtime) = app.settings.get("FUNCTIONS_WORKER_RUNTIME") {
            return runtime.eq_ignore_ascii_case(self.language.name());
        }
        match self.language {
            Language::Python => {
                let script =
                    app.settings.get("PYTHON_SCRIPT_FILE_NAME").map_or("function_app.py", String::as_str);
                app.root.join(script).is_file() || has_python_function(&app.root)
            }
            Language::Node => app.root.join("package.json").is_file(),
        }
    }

    async fn start(&self, app: AppFolder, logs: Arc<dyn LogSink>) -> Result<Arc<dyn Worker>, WorkerError> {
        let options = &self.host.options;
        let lines = Arc::new(Lines::new(logs, options.line_bytes, options.lines_per_second));
        let pool = Pool::start(Arc::clone(&self.host), self.language, app, lines).await?;
        Ok(Arc::new(pool))
    }
}

/// A folder of the v1 model: `function.json` beside a Python script.
fn has_python_function(root: &Path) -> bool {
    let is_function = |folder: PathBuf| {
        let json = folder.join("function.json");
        json.is_file()
            && fs::read_to_string(&json).is_ok_and(|text| {
                text.contains(".py\"")
                    || (!text.contains("scriptFile") && folder.join("__init__.py").is_file())
            })
    };
    fs::read_dir(root).is_ok_and(|entries| entries.flatten().any(|entry| is_function(entry.path())))
}

/// Writes the launchers and empties the homes that a former run has left.
fn prepare_scratch(scratch: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let (launchers, homes) = (scratch.join("launchers"), scratch.join("homes"));
    fs::create_dir_all(scratch)?;
    for folder in [&launchers, &homes] {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(folder)?,
        }
    }
    // Workers of another user go through here, and see no more than their own home.
    for folder in [scratch, &homes] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
    }
    fs::set_permissions(&launchers, fs::Permissions::from_mode(0o755))?;
    launchers::write(&launchers)?;
    // Absolute, as workers have another working directory.
    Ok((fs::canonicalize(launchers)?, fs::canonicalize(homes)?))
}

/// The path of a program that is given by name: a worker's own `PATH` is another one.
fn find_program(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&paths).map(|folder| folder.join(program));
    found.find(|path| path.is_file()).unwrap_or_else(|| program.to_owned())
}

/// What a worker finds programs with, when the app's settings don't say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Host {
    /// Starts a process and takes it through all steps.
    pub(crate) async fn start_process(
        &self,
        language: Language,
        app: &AppFolder,
        lines: &Arc<Lines>,
        stop: StopSignal,
    ) -> Result<(Runner, Vec<LoadedFunction>), String> {
        let version = self.version(language).await?;
        let root = app.root.clone();
        let root = tokio::task::spawn_blocking(move || fs::canonicalize(root));
        let root = root.await.map_err(|error| error.to_string())?;
        let root = root.map_err(|error| format!("the app's folder {}: {error}", app.root.display()))?;
        let identity = self.identity(language, &root).await?;
        if let Some(remark) = &identity.remark {
            lines.say(LogLevel::Warning, remark.clone());
        }
        let ticket = self.gate.expect().map_err(|error| error.to_string())?;
        let home = self.homes.join(random_hex(8).map_err(|error| error.to_string())?);
        let launch = Launch {
            program: self.program(language).to_owned(),
            arguments: self.arguments(language, &ticket.id),
            environment: self.environment(language, app, &root, &home, &version, lines),
            folder: root.clone(),
            home,
            user: identity.user,
            secret: ticket.secret.clone(),
            memory: self.options.memory,
        };
        let process = Process::start(launch, Arc::clone(lines)).await;
        let process = process.map_err(|error| format!("{} can't be run: {error}", language.name()))?;
        let watched = self.watch.add(process.group(), self.options.memory);
        let launcher = self.launchers.join(language.name());
        let starter = Starter {
            options: &self.options,
            language: language.name(),
            launcher: &launcher,
            root: &root,
            lines,
        };
        let mut started = starter.run(process, ticket).await?;
        let functions = std::mem::take(&mut started.functions);
        Ok((Runner::new(started, &self.options, Arc::clone(lines), watched, stop), functions))
    }

    fn program(&self, language: Language) -> &Path {
        match language {
            Language::Python => &self.options.python,
            Language::Node => &self.node,
        }
    }

    /// The interpreter's version, asked for once.
    async fn version(&self, language: Language) -> Result<String, String> {
        let cell = match language {
            Language::Python => &self.python_version,
            Language::Node => &self.node_version,
        };
        cell.get_or_try_init(|| version_of(self.program(language))).await.cloned()
    }

    async fn identity(&self, language: Language, root: &Path) -> Result<Identity, String> {
        let mut paths = vec![self.program(language).to_owned(), root.to_owned(), self.launchers.clone()];
        if language == Language::Node {
            paths.push(self.options.node_modules.clone());
        }
        let run_as = self.options.run_as;
        let decide =
            move || identity::decide(run_as, &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        tokio::task::spawn_blocking(decide).await.map_err(|error| error.to_string())?
    }

    /// §5: the command line of the original, both ways of writing it.
    fn arguments(&self, language: Language, id: &str) -> Vec<String> {
        let (host, port) = (self.gate.address().ip().to_string(), self.gate.address().port().to_string());
        let (uri, longest) = (format!("http://{host}:{port}/"), self.options.message_bytes.to_string());
        let mut arguments = match language {
            Language::Python => vec![self.launchers.join("python/worker.py")],
            Language::Node => vec![
                // The heap is most of what Node holds; the rest is buffers and code.
                PathBuf::from(format!("--max-old-space-size={}", (self.options.memory >> 20) * 3 / 4)),
                self.launchers.join("node/worker.js"),
            ],
        }
        .into_iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect::<Vec<_>>();
        let pairs = [
            ("--host", host.as_str()),
            ("--port", &port),
            ("--workerId", id),
            ("--requestId", id),
            ("--grpcMaxMessageLength", &longest),
            ("--functions-uri", &uri),
            ("--functions-worker-id", id),
            ("--functions-request-id", id),
            ("--functions-grpc-max-message-length", &longest),
        ];
        arguments.extend(pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]));
        arguments
    }

    /// §5: "all app settings, plus …". Nothing of the node's own environment.
    fn environment(
        &self,
        language: Language,
        app: &AppFolder,
        root: &Path,
        home: &Path,
        version: &str,
        lines: &Lines,
    ) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for (name, value) in &app.settings {
            if is_variable(name, value) {
                environment.insert(name.clone(), value.clone());
            } else {
                let text = format!("the setting {name:?} can't be an environment variable and is left out");
                lines.say(LogLevel::Warning, text);
            }
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut defaults = vec![("PATH", DEFAULT_PATH), ("LANG", "C.UTF-8")];
        if language == Language::Python {
            // §5; and the app's folder isn't the worker's to write to.
            defaults.extend([("PYTHON_THREADPOOL_THREAD_COUNT", "1000"), ("PYTHONDONTWRITEBYTECODE", "1")]);
        }
        for (name, value) in defaults {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        let mut fixed = vec![
            ("FUNCTIONS_WORKER_DIRECTORY", text(&self.launchers.join(language.name()))),
            ("FUNCTIONS_APPLICATION_DIRECTORY", text(root)),
            ("FUNCTIONS_WORKER_RUNTIME", language.name().to_owned()),
            ("FUNCTIONS_WORKER_RUNTIME_VERSION", version.to_owned()),
            ("AzureWebJobsScriptRoot", text(root)),
            ("HOME", text(home)),
            ("TMPDIR", text(home)),
        ];
        if language == Language::Node {
            fixed.push(("FLEETLINE_NODE_MODULES", text(&self.options.node_modules)));
        }
        environment.extend(fixed.into_iter().map(|(name, value)| (name.to_owned(), value)));
        environment
    }
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}
