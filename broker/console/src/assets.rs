//! The page's files, in the binary.
//!
//! A request names one of [`ALL`] exactly; there is no other way to a file. A browser may keep a file and
//! asks each time whether it is still the same (`ETag`), so a new release shows at once.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use ring::digest;

use crate::reply::Reply;

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its name behind `/console/`.
    pub name: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal)*) => {
        &[$(Asset { name: $name, bytes: include_bytes!(concat!("../assets/", $name)) },)*]
    };
}

/// All of them.
static ALL: &[Asset] = assets! {
    "index.html"
    "css/tokens.css"
    "css/layout.css"
    "css/parts.css"
    "css/views.css"
    "img/icons.svg"
    "img/logo.svg"
    "js/app.js"
    "js/api.js"
    "js/boot.js"
    "js/chart.js"
    "js/dom.js"
    "js/format.js"
    "js/keyboard.js"
    "js/live.js"
    "js/map.js"
    "js/mapdata.js"
    "js/mapdraw.js"
    "js/router.js"
    "js/session.js"
    "js/store.js"
    "js/table.js"
    "js/theme.js"
    "js/tree.js"
    "js/views/about.js"
    "js/views/device.js"
    "js/views/devices.js"
    "js/views/functions.js"
    "js/views/overview.js"
    "js/views/partitions.js"
    "js/views/signin.js"
    "map/europe.json"
    "map/world.json"
    "vendor/signalr/signalr.min.js"
    "vendor/uplot/uPlot.esm.js"
    "vendor/uplot/uPlot.min.css"
    "vendor/LICENSES.txt"
};

/// Etags, in the order of [`ALL`].
static ETAGS: LazyLock<Vec<String>> = LazyLock::new(|| ALL.iter().map(Asset::etag).collect());

/// The file of a name.
pub(crate) fn find(name: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.name == name)
}

impl Asset {
    fn etag(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.bytes);
        let hex: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{hex}\"")
    }

    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, kind)| kind) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("json") => "application/json; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// The file, or that the browser has it already.
    pub(crate) fn reply(&'static self, known: Option<&HeaderValue>) -> Reply {
        let etag = ALL.iter().position(|asset| asset.name == self.name).and_then(|at| ETAGS.get(at));
        let etag = etag.cloned().unwrap_or_else(|| self.etag());
        let is_known = known
            .and_then(|known| known.to_str().ok())
            .is_some_and(|known| known.split(',').any(|part| part.trim().trim_start_matches("W/") == etag));
        let reply = match is_known {
            true => Reply::empty(StatusCode::NOT_MODIFIED),
            false => Reply { body: Bytes::from_static(self.bytes), ..Reply::empty(StatusCode::OK) }
                .with(header::CONTENT_TYPE, self.media_type()),
        };
        reply.with(header::ETAG, etag).with(header::CACHE_CONTROL, "no-cache")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
    }

    fn files(folder: &Path, under: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{under}{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => files(&entry.path(), &format!("{name}/"), found),
                false => drop(found.insert(name)),
            }
        }
    }

    fn text(name: &str) -> &'static str {
        std::str::from_utf8(find(name).unwrap_or_else(|| panic!("{name} is no asset")).bytes).unwrap()
    }

    /// What stands between `before` and the next quote, wherever `before` occurs.
    fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        let quote = before.chars().last().unwrap();
        let ends = text.match_indices(before).map(|(at, _)| &text[at + before.len()..]);
        ends.filter_map(|rest| rest.split_once(quote).map(|(inside, _)| inside)).collect()
    }

    /// `a/b/../c` without its dots.
    fn resolved(base: &str, relative: &str) -> String {
        let mut parts: Vec<&str> = base.split('/').collect();
        parts.pop();
        for part in relative.split('/') {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// The table has every file of the folder that the page is made of, and no other.
    #[test]
    fn the_table_is_the_folder() {
        let mut found = BTreeSet::new();
        files(&folder(), "", &mut found);
        found.retain(|name| !name.ends_with("/LICENSE") && name != "vendor/SHA256SUMS");
        let table: BTreeSet<String> = ALL.iter().map(|asset| asset.name.to_owned()).collect();
        assert_eq!(found, table);
    }

    /// Every file that the page, its scripts and its styles name is there.
    #[test]
    fn references_lead_somewhere() {
        let page = text("index.html");
        let of_page = quoted(page, "src=\"").into_iter().chain(quoted(page, "href=\""));
        for name in of_page.filter(|name| !name.starts_with('#')) {
            assert!(find(name).is_some(), "index.html names {name}");
        }
        for asset in ALL.iter().filter(|asset| asset.name.starts_with("js/")) {
            let script = text(asset.name);
            for module in quoted(script, "from \"").into_iter().chain(quoted(script, "import \"")) {
                let name = resolved(asset.name, module);
                assert!(find(&name).is_some(), "{} imports {module}", asset.name);
            }
            for data in quoted(script, "fetch(\"").into_iter().filter(|name| !name.starts_with("api/")) {
                assert!(find(data).is_some(), "{} fetches {data}", asset.name);
            }
        }
    }

    /// The icons that scripts and page name are in the sprite.
    #[test]
    fn icons_exist() {
        let sprite = text("img/icons.svg");
        for asset in ALL.iter().filter(|asset| asset.name.starts_with("js/")) {
            for icon in quoted(text(asset.name), "icon(\"") {
                assert!(sprite.contains(&format!("id=\"{icon}\"")), "{} shows {icon}", asset.name);
            }
        }
    }

    /// The page has nothing that its policy refuses, and loads nothing from elsewhere.
    #[test]
    fn nothing_inline_and_nothing_foreign() {
        let page = text("index.html");
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("javascript:"));
        for script in page.split("<script").skip(1) {
            let (tag, rest) = script.split_once('>').unwrap();
            assert!(tag.contains("src=") && rest.starts_with("</script>"), "{tag}");
        }
        for asset in ALL.iter().filter(|asset| !asset.name.starts_with("vendor/")) {
            let own = text(asset.name).replace("http://www.w3.org/", "");
            for scheme in ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("] {
                assert!(!own.contains(scheme), "{} has {scheme}", asset.name);
            }
        }
    }

    /// The kept libraries are the releases that `vendor.sh` names, byte for byte.
    #[test]
    fn kept_libraries() {
        let sums = std::fs::read_to_string(folder().join("vendor/SHA256SUMS")).unwrap();
        let mut count = 0;
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let bytes = std::fs::read(folder().join(name)).unwrap();
            let hash = digest::digest(&digest::SHA256, &bytes);
            let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, sum, "{name}");
            count += 1;
        }
        let listed = |asset: &&Asset| asset.name.starts_with("vendor/") || asset.name.starts_with("map/");
        for asset in ALL.iter().filter(listed) {
            assert!(sums.contains(asset.name), "{} has no sum", asset.name);
        }
        assert!(count >= 6, "{count}");
    }

    /// The map is small enough for a first visit over a slow link.
    #[test]
    fn the_map_is_small() {
        assert!(find("map/europe.json").unwrap().bytes.len() <= 200 << 10);
        assert!(find("map/world.json").unwrap().bytes.len() <= 100 << 10);
    }

    /// A browser that has the file doesn't get it again.
    #[test]
    fn etags() {
        let asset = find("index.html").unwrap();
        let first = asset.reply(None);
        assert_eq!(first.status, 200);
        let etag = first.headers.iter().find(|(name, _)| *name == header::ETAG).unwrap().1.clone();
        let again = asset.reply(Some(&HeaderValue::from_str(&format!("\"x\", W/{etag}")).unwrap()));
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        assert_eq!(asset.reply(Some(&HeaderValue::from_static("\"x\""))).status, 200);
    }
}
