//! The demo's function apps, deployed as anybody deploys: an alarm in Python, averages in WebAssembly.

use std::path::{Path, PathBuf};

use fleetline_cli::{CliError, Deployed, Rest, app_name_of, deploy as deploy_app};

use super::show::Step;

/// The apps of the example, and how to make one that is missing.
const APPS: [(&str, &str, &str); 2] = [
    ("alarm", "examples/flights/alarm", "run it where the repository is checked out"),
    (
        "average",
        "target/demo/average",
        "`examples/flights/average/build.sh target/demo/average` builds it (npm is needed)",
    ),
];

/// Whether all apps are there, before anything is started.
///
/// # Errors
/// Which one isn't, and what to do.
pub(super) fn check(more: &[PathBuf]) -> Result<(), CliError> {
    for (name, folder, hint) in APPS {
        if !Path::new(folder).join("host.json").is_file() {
            return Err(CliError::Failed(format!(
                "the function app {name} is missing: there is no {folder}/host.json\nhint: {hint}; `make run` does it all"
            )));
        }
    }
    more.iter().try_for_each(|folder| app_name_of(folder).map(drop))
}

/// Deploys what isn't deployed yet.
///
/// # Errors
/// What the hub refused.
pub(super) async fn deploy(rest: &mut Rest, more: &[PathBuf]) -> Result<(), CliError> {
    let step = Step::begin("functions");
    let mut apps: Vec<(String, PathBuf)> =
        APPS.iter().map(|(name, folder, _)| ((*name).to_owned(), PathBuf::from(folder))).collect();
    for folder in more {
        apps.push((app_name_of(folder)?, folder.clone()));
    }
    let mut outcomes = Vec::new();
    for (name, folder) in &apps {
        let deployed = deploy_app(rest, name, folder, false, &[], |text| step.tell(text)).await;
        let deployed = deployed.map_err(|error| match error {
            CliError::Failed(text) => CliError::Failed(format!("function app {name}: {text}")),
            other => other,
        })?;
        outcomes.push(match deployed {
            Deployed::Version(version) => format!("{name} (version {version})"),
            Deployed::Already(version) => format!("{name} (version {version}, unchanged)"),
        });
    }
    step.done(&format!("{} run", outcomes.join(", ")));
    Ok(())
}
