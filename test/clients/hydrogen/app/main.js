// The whole Hydrogen application, put together from what its SDK exports.
import { FeatureSet, Platform, RootViewModel, createNavigation, createRouter } from "hydrogen-view-sdk";
import "hydrogen-view-sdk/theme-element-light.css";

const platform = new Platform({
    container: document.body,
    assetPaths: {
        downloadSandbox: "download-sandbox.html",
        worker: "worker.js",
        olm: { wasm: "olm.wasm", legacyBundle: "olm_legacy.js", wasmBundle: "olm.js" },
        serviceWorker: "sw.js",
    },
    configURL: "config.json",
    options: { development: new URLSearchParams(location.search).has("debug") },
});
await platform.init();
const features = await FeatureSet.load(platform.settingsStorage);
const navigation = createNavigation();
platform.setNavigation(navigation);
const urlRouter = createRouter({ navigation, history: platform.history });
urlRouter.attach();
const root = new RootViewModel({ platform, urlRouter, navigation, features });
await root.load();
platform.createAndMountRootView(root);
