use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// An instance metadata service that knows these paths.
async fn service(knows: &[(&str, &str)]) -> String {
    let knows: BTreeMap<String, String> = knows.iter().map(|(path, says)| ((*path).into(), (*says).into())).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let says = if path == "/latest/api/token" { Some("token") } else { knows.get(path).map(String::as_str) };
            let (status, body) = says.map_or(("404 Not Found", ""), |says| ("200 OK", says));
            let answer = format!(
                "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    endpoint
}

fn asks(endpoint: &str) -> imds::Client {
    imds::Client::builder().endpoint(endpoint).unwrap().max_attempts(1).operation_timeout(METADATA).build()
}

fn loader() -> ConfigLoader {
    // The region of whoever runs the tests is of no matter.
    aws_config::defaults(BehaviorVersion::latest())
        .region(aws_config::meta::region::RegionProviderChain::first_try(None::<Region>))
        .test_credentials()
}

const MAC: (&str, &str) = (MAC_PATH, "02:00:00:00:00:01");
const VPC: (&str, &str) = ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-id", "vpc-1");
const REGION: (&str, &str) = (REGION_PATH, "eu-west-1");

#[tokio::test]
async fn region_and_vpc_are_those_of_the_instance_unless_they_are_named() {
    let endpoint = service(&[MAC, VPC, REGION]).await;
    let named = |word: &str| Some(word.to_owned());
    for (region, vpc, expected) in [
        (None, None, ("eu-west-1", "vpc-1")),
        (named("us-east-2"), None, ("us-east-2", "vpc-1")),
        (None, named("vpc-2"), ("eu-west-1", "vpc-2")),
        (named("us-east-2"), named("vpc-2"), ("us-east-2", "vpc-2")),
    ] {
        let options = Options { region, vpc, rates: Rates::default() };
        let connected = Sdk::connect_by(loader(), asks(&endpoint), options).await.unwrap();
        assert_eq!((connected.region.as_str(), connected.vpc.as_str()), expected);
    }
}

#[tokio::test]
async fn what_the_instance_does_not_say_has_to_be_named() {
    let region = Options { region: Some("eu-west-1".to_owned()), ..Options::default() };
    for (knows, options, expected) in [
        (&[MAC, VPC][..], Options::default(), "--aws-region"),
        (&[MAC], region.clone(), "--aws-vpc-id"),
        (&[], region.clone(), "--aws-vpc-id"),
        (&[(MAC_PATH, "../../x")], region.clone(), "says \"../../x\""),
        (&[(MAC_PATH, "")], region, "says \"\""),
    ] {
        let endpoint = service(knows).await;
        let error = Sdk::connect_by(loader(), asks(&endpoint), options).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_instance_without_a_metadata_service_is_told_from_one_that_waits_for_ever() {
    let begin = std::time::Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let options = Options { region: Some("eu-west-1".to_owned()), ..Options::default() };
    let error = Sdk::connect_by(loader(), asks(&endpoint), options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Vpc(_)), "{error}");
    assert!(begin.elapsed() < METADATA * 3, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn without_certificates_of_authorities_what_needs_none_is_reached() {
    let endpoint = service(&[MAC, VPC, REGION]).await;
    let http = client(false).unwrap();
    let config = ProviderConfig::without_region().with_http_client(http.clone());
    let metadata = imds::Client::builder().configure(&config).endpoint(&endpoint).unwrap().build();
    let connected = Sdk::connect_by(loader().http_client(http), metadata, Options::default()).await.unwrap();
    assert_eq!(connected.vpc, "vpc-1");
    for (endpoint, by_tls) in [(None, true), (Some("https://localhost"), true), (Some("http://localhost"), false)] {
        assert_eq!(is_reached_by_tls(endpoint), by_tls, "{endpoint:?}");
    }
}
