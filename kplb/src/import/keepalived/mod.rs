//! keepalived.conf: virtual routers and, where it balances by itself, virtual servers.
//!
//! ```text
//!   file --- lines (words, definitions, sequence) --> words --- tree --> blocks --+-- instance ---------> Instance
//!                                                                                 +-- virtual_server ---> Wanted
//! ```

mod addresses;
mod authentication;
mod checker;
mod definitions;
mod globals;
mod instance;
mod lines;
mod reason;
mod scripts;
mod sequence;
mod tree;
mod value;
mod virtual_server;
mod words;

use std::path::Path;

pub(super) use self::instance::{Instance, Transport};
use super::{error::ImportError, reading::Reading, wanted::Wanted};

/// What a keepalived.conf says.
#[derive(Default)]
pub(super) struct Keepalived {
    pub(super) instances: Vec<Instance>,
    pub(super) wanted: Vec<Wanted>,
}

/// Reads the file and all that it includes.
pub(super) fn read(path: &Path, config_id: &str, reading: &mut Reading<'_>) -> Result<Keepalived, ImportError> {
    let lines = lines::read(path, config_id, reading)?;
    let findings = &mut reading.findings;
    let file = tree::build(lines, findings)?;
    let globals = globals::read(&file, findings);
    let scripts = scripts::read(&file, findings);
    let groups = virtual_server::groups(&file);
    let (mut instances, mut wanted) = (Vec::new(), Vec::new());
    for directive in &file {
        match directive.keyword() {
            "vrrp_instance" => instances.extend(instance::read(directive, &globals, &scripts, findings)),
            "virtual_server" => wanted.extend(virtual_server::read(directive, &groups, findings)),
            // Read where they are needed.
            "global_defs" | "vrrp_script" | "virtual_server_group" | "garp_group" => {}
            "vrrp_sync_group" => {
                let why = "each address family elects its master by itself, and one router id is all that kplb has";
                findings.left_out(
                    &directive.written,
                    why,
                    "nothing to do, if its members are of one node's two families",
                );
            }
            _ => globals::no_equivalent(directive, findings),
        }
    }
    Ok(Keepalived { instances, wanted })
}
