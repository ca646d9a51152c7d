// Makes the replica set of one, the user root, and the users in /access, where they aren't there yet; healthy once this
// member is the primary and they are.
const fs = require("fs");
const hello = db.hello();
if (!hello.setName) rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongo:27017" }] });
if (!hello.isWritablePrimary) quit(1);

const admin = db.getSiblingDB("admin");
const pwd = process.env.ROOT_PASSWORD;
try {
  admin.auth("root", pwd);
} catch (error) {
  admin.createUser({ user: "root", pwd, roles: ["root"] }); // from this machine, the first user may be made by anybody
  admin.auth("root", pwd);
}

const [wanted, made] = ["/access/users.js", "/tmp/users.js"];
const users = fs.readFileSync(wanted, "utf8");
if (!fs.existsSync(made) || fs.readFileSync(made, "utf8") !== users) {
  load(wanted);
  fs.writeFileSync(made, users, { mode: 0o600 });
}
quit(0);
