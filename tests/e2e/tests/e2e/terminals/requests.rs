//! What every exec can ask for.

use serde_json::{Value, json};

use super::Bed;

#[tokio::test(flavor = "multi_thread")]
async fn stdin_exact_bytes_signals_and_users() {
    for provider in ["mock", "native"] {
        let bed = Bed::make(provider).await;
        let told = bed.exec(json!({ "command": "cat; cat", "stdin": "hällo\n" })).await;
        assert_eq!(told.json().unwrap()["stdout"], "hällo\n", "{provider}");

        // Bytes that are no text, both ways, captured and streamed (BUG-26).
        let body = json!({ "command": "cat; printf '\\377' >&2", "stdin": "/wAB/g==",
                           "encoding": "base64" });
        let told = bed.exec(body.clone()).await.json().unwrap();
        assert_eq!((&told["stdout"], &told["stderr"]), (&json!("/wAB/g=="), &json!("/w==")));
        assert_eq!(told["encoding"], "base64");
        let mut streamed = body;
        streamed["stream"] = true.into();
        let streamed = super::lines(&bed.exec(streamed).await);
        let line = streamed.iter().find(|l| l["stream"] == "stdout").unwrap();
        assert_eq!((&line["data"], &line["encoding"]), (&json!("/wAB/g=="), &json!("base64")));

        let told = bed.exec(json!({ "command": "kill -TERM $$" })).await.json().unwrap();
        assert_eq!((&told["exit_code"], &told["signal"]), (&json!(143), &json!("TERM")));

        let late = json!({ "command": "echo begun; echo err >&2; sleep 60", "timeout": "300ms" });
        let told = bed.exec(late).await;
        assert_eq!(told.status, 408);
        let told = told.json().unwrap();
        assert_eq!((&told["code"], &told["stdout"]), (&json!("TIMEOUT"), &json!("begun\n")));
        assert!(told["stderr"].as_str().unwrap().starts_with("err\n"), "{told}");

        let nobody = bed.exec(json!({ "command": "id", "user": "no-such-user" })).await;
        assert_eq!(nobody.status, 422, "{}", nobody.text());
        assert_eq!(nobody.json().unwrap()["code"], "USER_NOT_FOUND");
        for bad in [
            json!({ "command": "x", "encoding": "hex" }),
            json!({ "command": "x", "encoding": "base64", "stdin": "%" }),
            json!({ "command": "x", "exec_id": "a/b" }),
            json!({ "command": "x", "tty": true }),
            json!({ "command": "x", "detach": true, "stream": true }),
        ] {
            assert_eq!(bed.exec(bad.clone()).await.status, 400, "{bad}");
        }
        bed.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_image_has_no_power() {
    let bed = Bed::make("native").await;
    let root = bed.exec(json!({ "command": "id -u" })).await.json().unwrap();
    assert_eq!(root["stdout"], "0\n");
    let script = "id -u; grep CapEff /proc/self/status; touch /etc/x 2>&1; cat /proc/1/environ 2>&1;\
                  kill -9 1 2>&1; echo $HOME";
    let reply = bed.exec(json!({ "command": script, "user": "nobody" })).await;
    if !rustix::process::geteuid().is_root() {
        assert_eq!(reply.status, 422, "one user only: {}", reply.text());
        return bed.close().await;
    }
    let told: Value = reply.json().unwrap();
    let out = told["stdout"].as_str().unwrap();
    assert!(out.starts_with("65534\nCapEff:\t0000000000000000\n"), "{told}");
    assert!(out.matches("ermi").count() >= 2, "{out}");
    bed.close().await;
}
