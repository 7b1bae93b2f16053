// check prints a line per check, with a tab and the reason if it failed.
export async function check(name, body) {
  try {
    await body();
    console.log(name);
  } catch (error) {
    console.log(`${name}\t${String(error?.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
}
