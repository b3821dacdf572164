use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableNames { pub features: Vec<String>, pub target: Option<String>, pub weight: Option<String>, pub offset: Option<String>, pub group: Option<String> }
