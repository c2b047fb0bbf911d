//! Instances that no agent claims, after a restored store: seen, given back, removed.

use super::world::{World, echo_model, processes_in, until};

#[test]
fn orphans_of_a_restored_store_are_listed_given_back_and_removed() {
    let (world, model) = (World::new(), echo_model());
    let mut serving = world.serve();
    assert!(serving.terminate().success());
    let (store, before) = (world.path("zeroone-data/zeroone.redb"), world.path("before"));
    std::fs::copy(&store, &before).unwrap();

    let mut serving = world.serve();
    let ids = ["Ada", "Bob"].map(|name| {
        let line = ["agent", "create", name, "--provider", "openai", "--model", "m", "--provider-url", &model];
        serving.verb(&world, &[&line[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
        serving.json(&world, &["agent", "get", &name.to_lowercase()])["id"].as_str().unwrap().to_owned()
    });
    let held = processes_in(&world.path("zeroone-data/agents"));
    assert_eq!(held.len(), 2);
    // The service dies, and its store is put back to what it was before the two.
    serving.kill();
    std::fs::copy(&before, &store).unwrap();

    let serving = world.try_serve(&[("ZEROONE_ORPHANS", "report")]).unwrap();
    let listed = || Some(serving.json(&world, &["orphan", "list"])).filter(|list| list.as_array().unwrap().len() == 2);
    let listed = until("both are reported", listed);
    assert!(ids.iter().all(|id| listed.to_string().contains(id)), "{listed}");
    let table = serving.verb(&world, &["orphan", "list"]);
    assert!(
        table.lines().next().unwrap().starts_with("ID") && table.contains("ada") && table.contains("Bob"),
        "{table}"
    );

    let adopted = serving.json(&world, &["orphan", "adopt", &ids[0]]);
    assert_eq!(adopted["id"].as_str(), Some(ids[0].as_str()), "{adopted}");
    let agent = || Some(serving.json(&world, &["agent", "get", "ada"])).filter(|it| it["status"] != "DEPLOYING");
    assert_eq!(until("it is an agent again", agent)["name"], "Ada");

    assert_eq!(serving.json(&world, &["orphan", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(serving.verb(&world, &["orphan", "remove", &ids[1], "--yes"]), "removed");
    assert_eq!(serving.json(&world, &["orphan", "list"]).as_array().unwrap().len(), 0);
    assert!(!world.path("zeroone-data/agents").join(&ids[1]).exists(), "its folder is gone");
    let unknown = serving.refused(&world, &["orphan", "remove", &ids[1], "--yes"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
}
