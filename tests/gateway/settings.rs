//! Settings that mean something: ZeroClaw's keys, schemas, variables, limits and links.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use zeroone::gateway::{Gateway, Options};

use super::model::{FakeModel, Reply};
use super::program::{Output, Running, command, pair, refusal};
use super::world::{PATIENCE, World, both};
use crate::http_client::http_client;

async fn doctor(world: &World) -> String {
    both(world.get("/api/doctor").send().await.unwrap()).await.1["results"].to_string()
}

/// Why a gateway with this file does not start.
async fn refused(config: &str) -> String {
    let home = TempDir::new().unwrap();
    std::fs::create_dir_all(home.path().join(".zeroclaw")).unwrap();
    std::fs::write(home.path().join(".zeroclaw/config.toml"), config).unwrap();
    match Gateway::bind(Options::new(home.path()).port(0)).await {
        Ok(_) => panic!("it starts with {config}"),
        Err(error) => error.to_string(),
    }
}

/// The tools that the model was offered last.
fn offered(world: &World) -> Vec<String> {
    let calls = world.model.calls();
    let tools = calls.last().unwrap().body["tools"].as_array().cloned().unwrap_or_default();
    tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn chat(world: &World, message: &str) -> (u16, Value) {
    let answer = world.post("/api/chat").json(&json!({ "message": message })).send().await.unwrap();
    let (status, body) = both(answer).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn files_of_later_schemas_ask_the_provider_that_they_name() {
    for (name, text) in [
        (
            "schema 3",
            "schema_version = 3\n[providers.models.vllm.main]\nuri = \"URL\"\nmodel = \"m-3\"\napi_key = \"sk-3\"\n\
             [agents.default]\nmodel_provider = \"vllm.main\"\n",
        ),
        (
            "schema 3 without an agent",
            "schema_version = 3\n[providers.models.custom.only]\nuri = \"URL\"\nmodel = \"m-3\"\napi_key = \"sk-3\"\n",
        ),
        (
            "schema 2",
            "schema_version = 2\n[providers]\nfallback = \"mine\"\n[providers.models.mine]\nbase_url = \"URL\"\nmodel = \"m-3\"\n\
             api_key = \"sk-3\"\n",
        ),
        (
            "a named provider",
            "default_provider = \"mine\"\n[model_providers.mine]\nbase_url = \"URL\"\nmodel = \"m-3\"\napi_key = \"sk-3\"\n",
        ),
    ] {
        let model = FakeModel::start().await;
        let mut world = World::with_config(model.clone(), &text.replace("URL", &model.url())).await;
        world.pair().await;
        assert_eq!(world.say("hi").await.1["model"], "m-3", "{name}");
        assert_eq!(model.calls()[0].header("authorization"), "Bearer sk-3", "{name}");
        // Pairing wrote into the file; the next start means the same.
        world.restart().await;
        assert_eq!(world.say("hi").await.1["model"], "m-3", "{name}");
    }
}

#[tokio::test]
async fn what_the_file_asks_for_and_does_not_get_is_in_the_doctor() {
    let world = World::paired(
        "[[model_routes]]\nhint = \"fast\"\nprovider = \"groq\"\nmodel = \"x\"\n[channels_config.matrix]\nhomeserver = \"h\"\n\
         [observability]\nbackend = \"otel\"\n[cost]\ndaily_limit_usd = 1.0\n[heartbeat]\nenabled = true\n\
         [identity]\nformat = \"aieos\"\n[tunnel]\nprovider = \"cloudflare\"\n[browser]\nenabled = true\n",
    )
    .await;
    let said = doctor(&world).await;
    for words in [
        "model_routes is not honoured",
        "channels_config.matrix is not honoured",
        "observability",
        "cost.prices",
        "heartbeat is not honoured",
        "identity is not honoured",
        "tunnel is not honoured",
        "browser is not honoured",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn what_cannot_be_left_out_stops_the_start_with_a_remedy() {
    for (config, words) in [
        ("[proxy]\nenabled = true\nhttps_proxy = \"http://planted\"\n", "HTTPS_PROXY"),
        ("[gateway.tls]\nenabled = true\n", "TLS proxy"),
        ("[security.otp]\nenabled = true\n", "excluded_tools"),
        ("schema_version = 9\n", "schema_version"),
        ("api_key = \"${ZEROONE_TEST_IS_NOT_SET}\"\n", "ZEROONE_TEST_IS_NOT_SET"),
        ("default_provider = \"gtp\"\n", "openrouter"),
        ("[agent]\nmax_tool_iterations = 4000000000\n", "max_tool_iterations"),
        ("timezone = \"Mars\"\n", "timezone"),
        ("[autonomy]\nlevel = \"planted\"\n", "expected one of `read"),
        ("[memory]\nbackend = \"planted\"\n", "memory.backend cannot be used; expected one of"),
        ("[gateway]\nport = \"planted, expected nothing\"\n", "gateway.port cannot be used; expected u16"),
    ] {
        let error = refused(config).await;
        assert!(error.contains(words) && !error.contains("planted"), "{config}: {error}");
    }
}

#[tokio::test]
async fn zero_rounds_of_tools_are_the_default_and_the_rules_of_autonomy_hold() {
    let offered_with = async |config: &str| {
        let world = World::paired(config).await;
        assert_eq!(chat(&world, "hi").await.0, 200);
        offered(&world)
    };
    assert!(offered_with("[agent]\nmax_tool_iterations = 0\n").await.contains(&"time".to_owned()));
    let reading = offered_with("[autonomy]\nlevel = \"readonly\"\n").await;
    assert!(!reading.is_empty() && !reading.iter().any(|tool| tool.contains("write") || tool.contains("store")));
    assert_eq!(offered_with("[autonomy]\nallowed_tools = [\"time\"]\n").await, ["time"]);
    assert!(!offered_with("[autonomy]\nalways_ask = [\"cron_add\"]\n").await.contains(&"cron_add".to_owned()));
    assert!(offered_with("[autonomy]\ndeny_all_tools = true\n").await.is_empty());
}

#[tokio::test]
async fn a_tool_that_is_not_offered_does_not_run_and_runs_have_a_limit() {
    let world = World::paired("[autonomy]\nexcluded_tools = [\"file_write\"]\nmax_actions_per_hour = 1\n").await;
    world.model.script([
        Reply::Tools(vec![
            ("file_write", json!({ "path": "a", "content": "x" })),
            ("time", json!({})),
            ("time", json!({})),
        ]),
        Reply::Text("done".into()),
    ]);
    let used = chat(&world, "go").await.1["tool_calls"].clone();
    let success: Vec<bool> = used.as_array().unwrap().iter().map(|call| call["success"].as_bool().unwrap()).collect();
    assert_eq!(success, [false, true, false]);
    assert!(!world.workspace().join("a").exists());
}

#[tokio::test]
async fn spending_limits_hold_for_every_endpoint_and_over_a_restart() {
    for limit in [
        "[cost]\ndaily_limit_usd = 30.0\n",
        "[cost]\nenabled = true\ndaily_limit_usd = 0\nmonthly_limit_usd = 30.0\n",
        "[autonomy]\nmax_cost_per_day_cents = 3000\n",
    ] {
        let mut world =
            World::paired(&format!("{limit}[cost.prices.m]\ninput = 1000000.0\noutput = 2000000.0\n")).await;
        // Each call costs 25 dollars: the second one begins below the limit.
        assert_eq!(world.say("one").await.0, 200, "{limit}");
        assert_eq!(world.say("two").await.0, 200);
        world.restart().await;
        let (status, body) = world.say("three").await;
        assert_eq!(status, 429, "{limit}");
        assert!(body["error"].as_str().unwrap().contains("spending limit"), "{body}");
        assert_eq!(chat(&world, "four").await.0, 429);
        let openai = json!({ "model": "m", "messages": [{ "role": "user", "content": "five" }] });
        assert_eq!(world.post("/v1/chat/completions").json(&openai).send().await.unwrap().status(), 429);
        assert_eq!(world.model.calls().len(), 2);
    }
    let free = "[cost]\nenabled = false\ndaily_limit_usd = 1.0\n[cost.prices.m]\ninput = 1000000.0\n";
    let world = World::paired(free).await;
    for _ in 0..3 {
        assert_eq!(world.say("hi").await.0, 200, "the limit is switched off");
    }
}

#[tokio::test]
async fn a_field_that_an_endpoint_does_not_know_is_named() {
    let world = World::paired("").await;
    for (path, body) in [
        ("/webhook", json!({ "message": "hi", "sesion": "x" })),
        ("/api/chat", json!({ "message": "hi", "sesion": [] })),
        ("/api/memory", json!({ "key": "k", "content": "c", "sesion": "x" })),
        ("/api/cron", json!({ "schedule": "0 9 * * *", "command": "c", "sesion": "x" })),
    ] {
        let (status, answer) = both(world.post(path).json(&body).send().await.unwrap()).await;
        assert_eq!(status, 400, "{path}");
        assert!(answer["error"].as_str().unwrap().contains("\"sesion\""), "{path}: {answer}");
    }
    let odd = json!({ "message": "hi", "<script>": 1 });
    let (_, answer) = both(world.post("/webhook").json(&odd).send().await.unwrap()).await;
    assert!(!answer.to_string().contains("script"), "{answer}");
}

#[tokio::test]
async fn an_empty_file_is_not_taken_and_no_variable_is_read_from_outside() {
    let world = World::paired("").await;
    let before = world.config_text();
    let put = async |text: String| both(world.request("PUT", "/api/config").body(text).send().await.unwrap()).await;
    let named = ["${PATH}", "$PATH", "\\u0024{PATH}", "${NO_SUCH_NAME:-${PATH}}", "${PATH-x}"];
    let named = named.map(|placeholder| before.replace("\"m\"", &format!("\"{placeholder}\"")));
    for text in [String::new(), "# nothing\n".into()].into_iter().chain(named) {
        let (status, answer) = put(text).await;
        assert_eq!(status, 400, "{answer}");
        assert!(!answer.to_string().contains("/bin"), "{answer}");
    }
    assert_eq!(world.config_text(), before);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_with_the_reason() {
    let world = World::paired("").await;
    let before = world.config_text();
    // In the way of the file that takes the place of the old one; the rights of a file do not stop root.
    std::fs::create_dir(world.config_path().with_extension("toml.tmp")).unwrap();
    let put = world.request("PUT", "/api/config").body(format!("{before}[pairing]\nmax_failures = 9\n"));
    let (status, answer) = both(put.send().await.unwrap()).await;
    let error = answer["error"].as_str().unwrap();
    assert_eq!(status, 500);
    assert!(error.starts_with("Failed to save config: config.toml cannot be written (Is a directory"), "{error}");
    assert_eq!(world.config_text(), before);
    std::fs::remove_file(world.config_path()).unwrap();
    std::fs::create_dir(world.config_path()).unwrap();
    let (status, answer) = both(world.get("/api/config").send().await.unwrap()).await;
    assert!(status == 500 && answer["error"].as_str().unwrap().starts_with("config.toml cannot be read ("), "{answer}");
}

#[tokio::test]
async fn a_key_that_zeroclaw_encrypted_is_not_sent_and_the_doctor_says_so() {
    let model = FakeModel::start().await;
    let config = format!(
        "model_provider = \"custom:{}\"\nmodel = \"m-4\"\napi_key = \"enc2:planted\"\n[secrets]\nencrypt = true\n",
        model.url()
    );
    let mut world = World::with_config(model.clone(), &config).await;
    world.pair().await;
    assert_eq!(world.say("hi").await.1["model"], "m-4");
    assert!(model.calls()[0].header("authorization").is_empty());
    let found = both(world.get("/api/doctor").send().await.unwrap()).await.1;
    let about_key: Vec<&Value> = found["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["message"].as_str().unwrap().to_lowercase().contains("api"))
        .collect();
    assert!(about_key.len() == 1 && about_key[0]["severity"] == "error", "{about_key:?}");
    assert!(about_key[0]["message"].as_str().unwrap().contains("encrypted by ZeroClaw"), "{about_key:?}");
}

#[tokio::test]
async fn a_linked_file_stays_linked_and_gets_the_token() {
    let mut world = World::new("").await;
    world.stop().await;
    let real = world.home.path().join("settings.toml");
    std::fs::rename(world.config_path(), &real).unwrap();
    std::os::unix::fs::symlink("../settings.toml", world.config_path()).unwrap();
    world.start().await;
    assert_eq!(world.pair().await["persisted"], true);
    assert!(world.config_path().symlink_metadata().unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("paired_tokens"));
    world.restart().await;
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_second_device_pairs_with_a_code_that_the_first_one_asked_for() {
    let mut world = World::paired("").await;
    let first = world.token().to_owned();
    assert_eq!(world.http.post(world.url("/api/pairing/initiate")).send().await.unwrap().status(), 401);
    let (status, answer) = both(world.post("/api/pairing/initiate").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let code = answer["pairing_code"].as_str().unwrap();
    let paired = world.http.post(world.url("/pair")).header("X-Pairing-Code", code).send().await.unwrap();
    let second = both(paired).await.1["token"].as_str().unwrap().to_owned();
    let again = world.http.post(world.url("/pair")).header("X-Pairing-Code", code).send().await.unwrap();
    assert_eq!(again.status(), 403);
    world.restart().await;
    for token in [first, second] {
        let answer = world.http.get(world.url("/api/status")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    // Nobody gets one by asking the command's way without writing into the folder.
    let guess = world.http.post(world.url("/admin/paircode/new")).header("X-Local-Secret", "ab".repeat(32));
    assert_eq!(guess.send().await.unwrap().status(), 401);
}

/// A verb of the program with the same home, run to its end.
fn verb(home: &TempDir, arguments: &[&str], port: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_zeroone");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", home.path()).env("ZEROCLAW_GATEWAY_PORT", port);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_the_machine_pairs_and_checks_health() {
    let home = TempDir::new().unwrap();
    let mut child = Running(command(&home, "").spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let http = http_client(PATIENCE);
    pair(&http, &url, code).await;
    for health in [
        &["status", "--format=exit-code"][..],
        &["status", "--format", "exit-code"],
        &["gateway", "status"],
        &["status"],
    ] {
        assert_eq!(verb(&home, health, &port).0, 0, "{health:?}");
    }
    let (code, said) = verb(&home, &["gateway", "pair"], &port);
    assert_eq!(code, 0, "{said}");
    let code = said.lines().next().unwrap().rsplit_once(' ').unwrap().1.to_owned();
    let second = pair(&http, &url, code).await;
    let status =
        http.get(format!("{url}/api/status")).bearer_auth(second["token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(status.status(), 200);
    assert!(!home.path().join(".zeroclaw/pairing-request").exists());
    drop(child);
    let nothing = TempDir::new().unwrap();
    for guess in [&["daemon"][..], &["channel", "start"]] {
        let (code, said) = verb(&nothing, guess, "0");
        assert!(code == 2 && said.contains("`zeroone gateway`"), "{guess:?}: {said}");
    }
    let (code, said) = verb(&home, &["status", "--format=exit-code"], &port);
    assert!(code != 0 && said.contains("/health"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_compose_files_and_clusters_are_read_or_named() {
    let model = FakeModel::start().await;
    let home = TempDir::new().unwrap();
    let mut command = command(&home, "");
    command.args(["--port", "0"]).env_remove("ZEROCLAW_GATEWAY_PORT");
    let environment = [
        ("PROVIDER", "ollama".to_owned()),
        ("ZEROCLAW_PROVIDER_URL", model.url()),
        ("ZEROCLAW_MODEL", "llama".to_owned()),
        ("ZEROCLAW_GATEWAY_PORT", "tcp://10.0.0.1:42617".to_owned()),
        ("ZEROCLAW_GATEWAY_SERVICE_HOST", "10.0.0.1".to_owned()),
        ("ZEROCLAW_GATEWAY_PORT_42617_TCP", "tcp://10.0.0.1:42617".to_owned()),
        ("ZEROCLAW_MODLE", "planted".to_owned()),
    ];
    let mut child = Running(command.envs(environment).spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let http = http_client(PATIENCE);
    let token = pair(&http, &url, code).await["token"].as_str().unwrap().to_owned();
    let answer =
        http.post(format!("{url}/webhook")).bearer_auth(token).json(&json!({ "message": "hi" })).send().await.unwrap();
    assert_eq!(both(answer).await.1["model"], "llama");
    let printed = output.seen.join("\n");
    assert!(
        printed.contains("ZEROCLAW_MODLE is not read") && printed.contains("ZEROCLAW_GATEWAY_PORT is the address"),
        "{printed}"
    );
    assert!(!printed.contains("SERVICE_HOST") && !printed.contains("planted"), "{printed}");
}

#[test]
fn verbs_of_compose_files_run_the_gateway_that_is_set_up() {
    for verb in [&["daemon"][..], &["channel", "start"]] {
        let home = TempDir::new().unwrap();
        command(&home, "");
        let mut program = Command::new(env!("CARGO_BIN_EXE_zeroone"));
        program.args(verb).env_clear().env("HOME", home.path()).env("ZEROCLAW_GATEWAY_PORT", "0");
        let mut child = Running(program.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut output = Output::of(&mut child);
        assert!(output.url().starts_with("http://127.0.0.1:"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_switches_and_keys_of_the_environment_fit_and_what_does_not_is_told() {
    let model = FakeModel::start().await;
    let home = TempDir::new().unwrap();
    let text = "default_provider = \"custom:${MODEL_URL:?the model's address}\"\ndefault_model = \"m\"\n\
                api_key = \"${THE_KEY-none}\"\ndefault_temperature = \"${HEAT}\"\n\
                [gateway]\nport = \"${PORT_OF_MINE}\"\nrequire_pairing = \"${PAIRING:-no}\"\n\
                [channels_config.webhook]\nsecret = \"${env:THE_SECRET}\"\n";
    let mut command = command(&home, text);
    command.env_remove("ZEROCLAW_GATEWAY_PORT").arg("--host=127.0.0.1");
    command.env("MODEL_URL", model.url()).env("THE_KEY", "\"Bearer sk-planted\"").env("HEAT", "0.5");
    command.env("PORT_OF_MINE", "0").env("TZ", "Mars/Olympus");
    let mut child = Running(command.spawn().unwrap());
    let mut output = Output::of(&mut child);
    let url = output.url();
    let http = http_client(PATIENCE);
    let answer = http.post(format!("{url}/webhook")).header("X-Webhook-Secret", "${env:THE_SECRET}");
    assert_eq!(answer.json(&json!({ "message": "hi" })).send().await.unwrap().status(), 200);
    let call = &model.calls()[0];
    assert_eq!((call.header("authorization"), &call.body["temperature"]), ("Bearer sk-planted", &json!(0.5)));
    let printed = output.seen.join("\n");
    assert!(printed.contains("channels_config.webhook.secret has a placeholder"), "{printed}");
    assert!(printed.contains("TZ names no time zone") && !printed.contains("planted"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_put_into_the_file() {
    let model = FakeModel::start().await;
    let home = TempDir::new().unwrap();
    let text =
        "default_provider = \"custom:${MODEL_URL}\"\napi_key = \"${THE_KEY}\"\ndefault_model = \"${NONE:-m-2}\"\n";
    let mut command = command(&home, text);
    command.env("MODEL_URL", model.url()).env("THE_KEY", "sk-planted");
    let mut child = Running(command.spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let http = http_client(PATIENCE);
    let token = pair(&http, &url, code).await["token"].as_str().unwrap().to_owned();
    let answer =
        http.post(format!("{url}/webhook")).bearer_auth(&token).json(&json!({ "message": "hi" })).send().await.unwrap();
    assert_eq!(both(answer).await.1["model"], "m-2");
    assert_eq!(model.calls()[0].header("authorization"), "Bearer sk-planted");
    // Neither the file nor what is shown of it has the value.
    let file = std::fs::read_to_string(home.path().join(".zeroclaw/config.toml")).unwrap();
    assert!(file.contains("${THE_KEY}") && file.contains("paired_tokens") && !file.contains("sk-planted"), "{file}");
    let keys = [("ZEROCLAW_providers__models__custom__default__uri", "planted"), ("ZEROCLAW_gateway__port", "x")];
    assert!(refusal(&home, "", &keys[1..]).contains("gateway.port"));
}
