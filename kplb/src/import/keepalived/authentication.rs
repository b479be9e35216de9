//! How the nodes of a virtual router know each other: the password of version 2.

use super::{globals, tree::Directive};
use crate::{
    import::finding::{Findings, NOTHING_TO_DO},
    vrrp::settings::{Password, Version},
};

const TAKE_AWAY: &str = "take it away on all nodes first: kplb does not hear nodes that have it";

/// The password that is sent, if one is.
pub(super) fn read(block: &Directive, version: Version, findings: &mut Findings) -> Option<Password> {
    let mut kind: Option<&Directive> = None;
    let mut password: Option<&Directive> = None;
    for directive in &block.block {
        match directive.keyword() {
            "auth_type" => kind = Some(directive),
            "auth_pass" => password = Some(directive),
            _ => globals::no_equivalent(directive, findings),
        }
    }
    if version == Version::V3 {
        findings.left_out(&block.written, "version 3 knows none, and keepalived sends none", NOTHING_TO_DO);
        return None;
    }
    match kind.map(|kind| (kind, kind.argument())) {
        Some((_, Some("PASS"))) => {}
        Some((kind, Some("AH"))) => {
            findings.left_out(&kind.written, "kplb knows no AH", TAKE_AWAY);
            return None;
        }
        other => {
            let written = other.map_or(&block.written, |(kind, _)| &kind.written);
            findings.left_out(written, "without a type that it knows keepalived sends no password", NOTHING_TO_DO);
            return None;
        }
    }
    let Some(directive) = password else {
        findings.left_out(&block.written, "there is no password in it", NOTHING_TO_DO);
        return None;
    };
    let text = directive.argument().unwrap_or_default();
    if text.is_empty() || !text.is_ascii() || text.chars().any(char::is_control) {
        let why = "kplb takes passwords of printable ASCII characters only";
        findings.left_out(&directive.written, why, "change it on all nodes first");
        return None;
    }
    if text.len() > Password::LENGTH {
        let why = format!("keepalived sends its first {} characters, and so does kplb", Password::LENGTH);
        findings.changed(&directive.written, why, "nothing to do, these were written");
    }
    Some(Password::from_text(text))
}

/// What only newer versions of keepalived have.
pub(super) fn no_hmac(directive: &Directive, findings: &mut Findings) {
    findings.left_out(&directive.written, "kplb's adverts have no HMAC", TAKE_AWAY);
}
