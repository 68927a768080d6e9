//! `deploy/crds/<plural>.yaml`.

use anyhow::Context as _;

use super::{Generated, YAML_HEADER};

/// One file for each CustomResourceDefinition.
pub fn files() -> anyhow::Result<Vec<Generated>> {
    berth_api::crd::all()
        .iter()
        .map(|crd| {
            let plural = &crd.spec.names.plural;
            let yaml = serde_saphyr::to_string(crd).with_context(|| format!("writing the CRD of {plural} as YAML"))?;
            Ok(Generated { path: format!("deploy/crds/{plural}.yaml").into(), content: format!("{YAML_HEADER}{yaml}") })
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
