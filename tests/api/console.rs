//! The web console's pages and files, as they come over HTTP.

use axum::Router;
use reqwest::Method;
use zeroone::domain::Plan;
use zeroone::http::HttpOptions;

use crate::world::{World, answer};

const PAGES: [&str; 15] = [
    "/",
    "/sign-in",
    "/account",
    "/agents/new",
    "/agents/01890000-0000-7000-8000-000000000000",
    "/agents/01890000-0000-7000-8000-000000000000/chat",
    "/agents/01890000-0000-7000-8000-000000000000/logs",
    "/agents/01890000-0000-7000-8000-000000000000/usage",
    "/agents/01890000-0000-7000-8000-000000000000/settings",
    "/agents/01890000-0000-7000-8000-000000000000/channels",
    "/agents/01890000-0000-7000-8000-000000000000/manage",
    "/admin/users",
    "/admin/agents",
    "/admin/service",
    "/api/docs",
];

async fn world() -> World {
    let pages: Router = zeroone::console::router();
    World::with(Plan::Pro, HttpOptions::default().with_pages(pages)).await
}

/// What a page names in `src` and `href` attributes.
fn named(html: &str) -> impl Iterator<Item = &str> {
    let parts = html.split("src=\"").chain(html.split("href=\""));
    parts.filter_map(|part| part.split_once('"').map(|(address, _)| address)).filter(|it| it.starts_with("/assets/"))
}

#[tokio::test]
async fn pages_are_strict_shells_and_their_files_are_kept_for_ever() {
    let world = world().await;
    for path in PAGES {
        let page = answer(world.raw(Method::GET, path)).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((page.header("cache-control"), page.header("x-frame-options")), ("no-cache", "DENY"), "{path}");
        assert!(!page.text.contains("<style") && !page.text.contains("style=\"") && !page.text.contains(" onclick"));
        assert!(page.text.contains("<html lang=\"en\""), "{path}");
        let mut bytes = page.text.len();
        let files: Vec<&str> = named(&page.text).collect();
        assert!(files.len() >= 2, "{path} names {files:?}");
        for file in files {
            let file = answer(world.raw(Method::GET, file)).await;
            assert_eq!(file.status, 200);
            assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable");
            bytes += file.text.len();
        }
        assert!(bytes < 150 * 1024, "{path} weighs {bytes} bytes");
    }
}

#[tokio::test]
async fn there_are_no_pages_and_files_but_these() {
    let world = world().await;
    let page = answer(world.raw(Method::GET, "/agents/<script>")).await;
    assert_eq!(page.status, 404);
    assert!(page.header("content-type").starts_with("text/html") && !page.text.contains("<script>"), "{}", page.text);
    let shell = answer(world.raw(Method::GET, "/sign-in")).await.text;
    let style = named(&shell).find(|file| file.ends_with("console.css")).unwrap().to_owned();
    for path in [style.replace("console.css", "console.rs"), style.replace("/assets/", "/assets/0"), "/assets/".into()]
    {
        assert_eq!(answer(world.raw(Method::GET, &path)).await.status, 404, "{path}");
    }
    // What is no page is answered as before.
    answer(world.raw(Method::GET, "/nothing")).await.problem(404, "not-found");
    assert_eq!(answer(world.raw(Method::POST, "/")).await.status, 405);
}
