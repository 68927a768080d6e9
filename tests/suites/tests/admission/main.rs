//! What the API server takes from Berth's accounts and what it refuses them, with `deploy/install.yaml` as it is shipped and none
//! of Berth's processes running.

mod installed;

mod claims;
mod epochs;
mod install;
mod pods;
mod secrets;
mod speaker_nodes;
