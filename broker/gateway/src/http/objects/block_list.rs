//! The XML of a block list: `<BlockList><Latest>id</Latest>…</BlockList>`.
//!
//! Only what the storage SDKs write is read: elements without attributes, Base64 inside, no comments,
//! no entities. Anything else is refused, so there is nothing that could expand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The ids of the blocks, in order; `None` for another text.
pub(super) fn parse(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
    let text = match text.strip_prefix("<?") {
        Some(head) => head.split_once("?>")?.1.trim_start(),
        None => text,
    };
    if text == "<BlockList/>" || text == "<BlockList />" {
        return Some(Vec::new());
    }
    let mut rest = text.strip_prefix("<BlockList>")?.strip_suffix("</BlockList>")?.trim_start();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let name = ["Latest", "Uncommitted", "Committed"].into_iter().find(|name| {
            rest.strip_prefix('<')
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with('>'))
        })?;
        let inner = &rest[name.len() + 2..];
        let (id, behind) = inner.split_once("</")?;
        rest = behind.strip_prefix(name)?.strip_prefix('>')?.trim_start();
        ids.push(STANDARD.decode(id.trim()).ok()?);
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_sdks() {
        let python = b"<?xml version='1.0' encoding='utf-8'?>\n<BlockList><Latest>MDA=</Latest><Latest>MDE=</Latest></BlockList>";
        assert_eq!(parse(python), Some(vec![b"00".to_vec(), b"01".to_vec()]));
        let dotnet =
            "\u{feff}<?xml version=\"1.0\"?><BlockList>\n  <Uncommitted>MDA=</Uncommitted>\n</BlockList>";
        assert_eq!(parse(dotnet.as_bytes()), Some(vec![b"00".to_vec()]));
        assert_eq!(parse(b"<BlockList></BlockList>"), Some(Vec::new()));
        assert_eq!(parse(b"<BlockList />"), Some(Vec::new()));
        for bad in [
            "",
            "<BlockList>",
            "<BlockList><Latest>MDA=</BlockList>",
            "<BlockList><Latest>!</Latest></BlockList>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><BlockList></BlockList>",
            "<BlockList><Other>MDA=</Other></BlockList>",
            "<BlockList><Latest a='b'>MDA=</Latest></BlockList>",
            "<BlockList><Latest>MDA=</Committed></BlockList>",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
