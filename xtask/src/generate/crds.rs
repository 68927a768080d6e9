//! `deploy/crds/<plural>.yaml`.

use super::{Generated, yaml};

/// One file for each CustomResourceDefinition.
pub fn files() -> anyhow::Result<Vec<Generated>> {
    berth_api::crd::all()
        .iter()
        .map(|crd| {
            Ok(Generated::new(
                format!("deploy/crds/{}.yaml", crd.spec.names.plural),
                yaml::file(&[yaml::document(crd)?]),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::*;

    #[test]
    fn the_yaml_says_what_the_code_says() {
        for (file, crd) in files().unwrap().iter().zip(berth_api::crd::all()) {
            let read: CustomResourceDefinition = serde_saphyr::from_str(&file.content).unwrap();
            assert_eq!(read, crd, "{}", file.path.display());
        }
    }
}
