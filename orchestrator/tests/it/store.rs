//! The store against a real PostgreSQL: its life, its views, and `sweep sql`.

use crate::harness::Project;

#[tokio::test]
async fn start_stop_start() {
    let project = Project::new();
    let store = project.store().await;
    assert_eq!(store.schema_version().await.expect("a version"), sweep::store::newest_version());
    println!("{}", project.transcript(&["db", "status"]));
    println!("{}", project.transcript(&["db", "stop"]));
    println!("{}", project.transcript(&["db", "status"]));
    println!("{}", project.transcript(&["db", "url"]));
    println!("{}", project.transcript(&["db", "status", "--json"]));
}
